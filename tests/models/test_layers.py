import math

import pytest
import torch
import torch.nn.functional as F
from naive import attention, turn

from randfeat.models.layers import (
    CLASS_PLACE,
    Block,
    KVCache,
    SelfAttention,
    SwiGLU,
    attend,
    causal_mask,
    ffn_width,
    rope_at,
    rope_table,
    rotate,
    stretched_rope_table,
)

CPU = torch.device("cpu")


class Like:
    """Attributes of a model that the naive rotation reads."""

    grid, rope_base = (3, 5), 100.0


def test_rotation_is_by_row_and_column_angles():
    x, at = torch.randn(2, 4, 6, 12), torch.randint(-1, 15, (2, 6))
    turned = rotate(x, rope_at(rope_table(Like.grid, 12, Like.rope_base, CPU), at))
    expected = turn(x.double().transpose(1, 2), at, Like).transpose(1, 2)
    torch.testing.assert_close(turned.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_stretched_table():
    grid, many = (3, 2), 99
    plain = rope_table((6, 4), 12, 100.0, CPU)
    assert torch.equal(stretched_rope_table(grid, (2, 2), many, 12, 100.0, CPU), plain)  # all frequencies as trained
    stretched = stretched_rope_table(grid, (2, 2), 0, 12, 100.0, CPU)
    trained = rope_table(grid, 12, 100.0, CPU)
    assert not stretched[0].any()
    for corner, its in ((1, 1), (1 + 3, 1 + 1), (1 + 20, 1 + 4), (1 + 23, 1 + 5)):  # the corners stay where they were
        torch.testing.assert_close(stretched[corner], trained[its])
    # from one row to the next, 2/5 of a trained step
    torch.testing.assert_close(stretched[1 + 4].angle()[:3], 0.4 * trained[1 + 2].angle()[:3])
    mixed = stretched_rope_table(grid, (2, 2), 1, 12, 100.0, CPU)
    fast = torch.arange(6) % 3 == 0  # the first of three frequencies, of rows and of columns
    assert torch.equal(mixed[:, fast], plain[:, fast])
    assert torch.equal(mixed[:, ~fast], stretched[:, ~fast])


def test_one_rotation_by_hand():
    # four channels: the first pair turns with the row, the second with the column, both by one radian a step
    table = rope_table((2, 3), 4, 10000.0, CPU)
    row, col = (torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in (1.0, 2.0))
    x = torch.tensor([0.3, -1.0, 2.0, 0.7])
    turned = rotate(x.view(1, 1, 1, 4), rope_at(table, torch.tensor([[1 * 3 + 2]]))).flatten()
    torch.testing.assert_close(turned, torch.cat((row @ x[:2], col @ x[2:])))


def test_the_class_row_vanishes_and_the_others_keep_lengths():
    table = rope_table((4, 2), 8, 10000.0, CPU)
    assert table.shape == (9, 4)
    assert not rope_at(table, torch.tensor([[CLASS_PLACE]])).any()
    torch.testing.assert_close(table[1:].abs(), torch.ones(8, 4))
    assert (table[1] == 1).all()  # the origin is not turned


def test_scores_depend_on_the_displacement_alone():
    table, (q, k) = rope_table((4, 4), 8, 10000.0, CPU), torch.randn(2, 1, 1, 1, 8)

    def score(at_q, at_k):
        return (
            rotate(q, rope_at(table, torch.tensor([[at_q]]))) * rotate(k, rope_at(table, torch.tensor([[at_k]])))
        ).sum()

    torch.testing.assert_close(score(0, 5), score(10, 15), atol=1e-5, rtol=1e-5)
    assert abs(score(0, 5) - score(0, 6)) > 1e-3


def test_rotation_in_half_precision_rounds_only_its_result():
    x, rope = torch.randn(1, 2, 3, 8).bfloat16(), rope_table((1, 3), 8, 10000.0, CPU)[None, 1:]
    assert torch.equal(rotate(x, rope), rotate(x.float(), rope).bfloat16())


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("seen", ["all", "causal", "mask"])
@pytest.mark.parametrize("queries", [5, 2])
def test_attention_is_the_naive_one(kv_heads, seen, queries):
    q, k, v = torch.randn(2, 4, queries, 8), torch.randn(2, kv_heads, 5, 8), torch.randn(2, kv_heads, 5, 8)
    drawn = (torch.rand(queries, 5) < 0.5) | torch.eye(queries, 5, dtype=torch.bool)
    mask = {
        "all": torch.ones(queries, 5).bool(),
        "causal": torch.ones(5, 5).tril().bool()[-queries:],
        "mask": drawn,
    }
    actual = attend(q, k, v, drawn if seen == "mask" else None, causal=seen == "causal")
    expected = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask[seen])
    torch.testing.assert_close(actual.transpose(1, 2).flatten(2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("queries", [300, 257, 128])
def test_causal_attention_in_parts_is_attention(queries):
    q, (k, v) = torch.randn(2, 4, queries, 8), torch.randn(2, 2, 2, 300, 8)
    mask = causal_mask(queries, 300, CPU)
    torch.testing.assert_close(attend(q, k, v, causal=True), attend(q, k, v, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_block_computes_the_wanted_rows_of_its_whole_output(causal):
    block, x = Block(SelfAttention(16, 4, 2), 16, 24, 1e-5, 0.0), torch.randn(2, 7, 16)
    rope, mlp_saw = rope_table((1, 7), 4, 10000.0, CPU)[None, 1:].expand(2, -1, -1), []
    whole = block(x, rope, causal=causal)
    block.mlp.register_forward_pre_hook(lambda _, inputs: mlp_saw.append(inputs[0].shape[1]))
    for rows in (slice(2, None, 2), slice(-4, None), slice(0, 3)):
        wanted = block(x, rope, causal=causal, rows=rows)
        torch.testing.assert_close(wanted, whole[:, rows], atol=1e-6, rtol=1e-5)
    assert mlp_saw == [3, 4, 3]


def test_a_rotation_by_cosines_and_sines_is_the_complex_one():
    x, rope = torch.randn(2, 4, 6, 8), rope_table((2, 3), 8, 10000.0, CPU)[None, 1:].expand(2, -1, -1)
    torch.testing.assert_close(rotate(x, torch.view_as_real(rope)), rotate(x, rope), atol=1e-6, rtol=1e-5)


def test_the_last_query_of_a_causal_mask_sees_the_last_key():
    assert causal_mask(2, 4, CPU).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_the_cache_keeps_what_is_committed_and_overwrites_the_rest():
    cache, steps = (
        KVCache(depth=2, capacity=6),
        torch.randn(3, 2, 2, 1, 3, 2, 4),
    )  # step, layer, k or v, (B, K, L, E)
    kept = steps[0, :, :, :, :, :0]
    for step, count in zip(steps, (1, 2, 2), strict=True):
        for layer in range(2):
            seen = cache.extend(layer, *step[layer])
            assert torch.equal(torch.stack(seen), torch.cat((kept[layer], step[layer]), 3))
        cache.commit(count)
        kept = torch.cat((kept, step[..., :count, :]), -2)


def test_attention_with_a_cache_is_attention_over_all():
    attn, x = SelfAttention(16, 4, 2), torch.randn(2, 7, 16)
    rope = rope_table((1, 7), 4, 10000.0, CPU)[None, 1:].expand(2, -1, -1)
    cache, parts = KVCache(1, 7), []
    for part in torch.arange(7).split([3, 1, 2, 1]):
        parts.append(attn(x[:, part], rope[:, part], causal=True, cache=cache))
        cache.commit(len(part))
    torch.testing.assert_close(torch.cat(parts, 1), attn(x, rope, causal=True), atol=1e-5, rtol=1e-5)


def test_swiglu_and_its_width():
    mlp, x = SwiGLU(4, 6), torch.randn(3, 4)
    gate = x @ mlp.w1.weight.T
    torch.testing.assert_close(mlp(x), F.linear(gate * gate.sigmoid() * (x @ mlp.w3.weight.T), mlp.w2.weight))
    # the official sizes
    assert [ffn_width(dim) for dim in (1024, 1280, 1536)] == [2816, 3584, 4096]
