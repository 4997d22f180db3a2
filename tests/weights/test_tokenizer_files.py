"""Official files of tokenizers: whether codes are compared by angle, which they do not say, and files of our own."""

import official
import pytest
import tiny
import torch

from randfeat import Pipeline, load_tokenizer, weights
from randfeat.tokenizers import LlamaGenVQ, MaskGITVQ, PatchTokenizer
from randfeat.tokenizers.quantizers import Codebook
from randfeat.weights import checkpoints
from randfeat.weights.identify import compared_by_angle

SMALL = dict(vocab_size=24, code_dim=4, width=32, multipliers=(1, 1), num_res_blocks=1, latent_dim=8)


def trained_codes(normalised, steps=60):
    """Return a codebook after some steps on latents of few clusters, so that not all codes are used."""
    torch.manual_seed(0)
    codebook, centres = Codebook(24, 4, normalised), torch.randn(5, 4)
    optimizer = torch.optim.Adam(codebook.parameters(), lr=0.02)
    for _ in range(steps):
        latents = (centres[torch.randint(5, (64,))] + 0.1 * torch.randn(64, 4)).T.view(1, 4, 8, 8)
        optimizer.zero_grad()
        codebook(latents).losses["codebook"].backward()
        optimizer.step()
    return codebook.embedding.weight.detach()


def write(path, codes):
    tokenizer = LlamaGenVQ(**SMALL)
    tokenizer.quantize.embedding.weight.data = codes
    return official.write(path, official.state_of(tokenizer), "model")


@pytest.mark.parametrize("normalised", [True, False])
def test_trained_codes_show_whether_they_were_normalised(tmp_path, normalised):
    codes = trained_codes(normalised)
    assert not torch.equal(codes, trained_codes(normalised, 0))
    opened = load_tokenizer(write(tmp_path / "vq.pt", codes))
    assert opened.quantize.normalised == normalised
    assert opened.config.get("l2_norm", True) == normalised
    assert opened.quantize.codes(torch.arange(24)).norm(dim=1).allclose(torch.ones(24)) == normalised


def test_lengths_that_fit_both_are_refused_and_decided_by_a_keyword(tmp_path):
    codes = torch.nn.functional.normalize(torch.randn(24, 4), dim=1) * torch.linspace(0.3, 3, 24).unsqueeze(1)
    path = write(tmp_path / "vq.pt", codes)
    with pytest.raises(
        ValueError, match=r"vq.pt does not say whether its codes are normalised, .* l2_norm=True\), or F"
    ):
        load_tokenizer(path)
    for given in (True, False):
        assert load_tokenizer(path, l2_norm=given).quantize.normalised == given


@pytest.mark.parametrize(("codes", "channels"), [(1, 1), (1, 8), (2, 16), (65536, 8)])
def test_fresh_codes_of_any_number_are_told_apart(codes, channels):
    for normalised in (True, False):
        state = {"quantize.embedding.weight": Codebook(codes, channels, normalised).embedding.weight}
        if codes > channels**0.5 or normalised:
            assert compared_by_angle(state) == normalised


def test_what_says_it_itself_needs_no_keyword(tmp_path):
    Pipeline(PatchTokenizer(7, 2, 1), tiny.model("arpg", (2, 3))).save(tmp_path / "model")
    for source in (tmp_path / "model", "llamagen-vq16"):
        with pytest.raises(ValueError, match="says itself whether its codes are normalised: leave l2_norm out"):
            load_tokenizer(source, l2_norm=False)
    file = official.write(tmp_path / "vq.pt", official.state_of(official.tokenizer(kind=MaskGITVQ)))
    with pytest.raises(ValueError, match=r"MaskGIT's VQGAN .* which never normalises: leave l2_norm out"):
        load_tokenizer(file, l2_norm=True)


def test_files_of_grey_images_open(tmp_path):
    made = LlamaGenVQ(**SMALL, channels=1)
    opened = load_tokenizer(official.write(tmp_path / "vq.pt", official.state_of(made)))
    assert opened.channels == 1
    assert opened.config == made.config


@pytest.mark.parametrize(
    ("tokenizer", "name", "message"),
    [
        (LlamaGenVQ(**SMALL), "vq.npz", "vq.npz is no checkpoint: expected a file that ends in .safetensors, .pt,"),
        (PatchTokenizer(7, 2, 1), "vq.pt", "LlamaGen's code knows its own VQ tokenizer, not a PatchTokenizer: save it"),
        (LlamaGenVQ(**SMALL, norm_groups=8), "vq.pt", "not one with another norm_groups: save it as a directory"),
        (LlamaGenVQ(**{**SMALL, "vocab_size": 16}, quantizer="lfq"), "vq.pt", "not one with another quantizer"),
    ],
)
def test_what_the_official_code_does_not_know_is_not_written(tmp_path, tokenizer, name, message):
    with pytest.raises(ValueError, match=message):
        checkpoints.write_official(tmp_path / name, tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_no_weight_shows_are_part_of_the_fingerprint():
    made = LlamaGenVQ(**SMALL)
    others = [dict(l2_norm=False), dict(norm_groups=8), dict(value_range=(0, 1)), dict(value_range=(0, 2))]
    found = {weights.fingerprint(made)}
    for changes in others:
        other = LlamaGenVQ(**SMALL, **changes)
        other.load_state_dict(made.state_dict())
        found.add(weights.fingerprint(other))
    assert len(found) == 1 + len(others)
    sizes = {**SMALL, "vocab_size": 60, "code_dim": 3}
    levels = [LlamaGenVQ(**sizes, quantizer="fsq", levels=given) for given in ([3, 4, 5], [5, 4, 3])]
    levels[1].load_state_dict(levels[0].state_dict())
    assert weights.fingerprint(levels[0]) != weights.fingerprint(levels[1])
    patches = [PatchTokenizer(7, 2, 1, value_range) for value_range in (None, (0, 1))]
    assert weights.fingerprint(patches[0]) != weights.fingerprint(patches[1])


def test_a_fingerprint_written_before_is_the_same():
    """A tokenizer without new settings has the digest of its tensors alone."""
    made = PatchTokenizer(2, 1, 1)
    made.codebook.copy_(torch.tensor([[0.0], [1.0]]))
    assert weights.fingerprint(made) == "0bbecbfc91250fd672c4a6c114ba4f057e8219ad30932a287e756f7380cb46fe"
