"""Pretraining of generators: tokenization, recipes, the training loop and runs on disk."""

from .agreement import AgreementObjective
from .config import (
    AgreementConfig,
    ControlConfig,
    ModelConfig,
    PretrainConfig,
    RuntimeConfig,
    TrainingConfig,
    read_recipe,
)
from .crops import CentreCrops, Crops, MovedCrops, RandomCrops, TenCrops
from .data import Batches, as_labels
from .finetune import FineTuning, plan_finetuning
from .generator import Validation, train, validate
from .objective import ControlObjective, Objective, cross_entropy
from .parallel import group
from .run import run_pretraining
from .signals import Stopped
from .start import ClassTable
from .tokenize import fit_patches, import_tokens, tokenize_images
from .trainer import History, Step

__all__ = [
    "AgreementConfig",
    "AgreementObjective",
    "Batches",
    "CentreCrops",
    "ClassTable",
    "ControlConfig",
    "ControlObjective",
    "Crops",
    "FineTuning",
    "History",
    "ModelConfig",
    "MovedCrops",
    "Objective",
    "PretrainConfig",
    "RandomCrops",
    "RuntimeConfig",
    "Step",
    "Stopped",
    "TenCrops",
    "TrainingConfig",
    "Validation",
    "as_labels",
    "cross_entropy",
    "fit_patches",
    "group",
    "import_tokens",
    "plan_finetuning",
    "read_recipe",
    "run_pretraining",
    "tokenize_images",
    "train",
    "validate",
]
