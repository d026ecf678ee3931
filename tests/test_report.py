"""From folders of pictures to a report: what it says, what it refuses, and that a browser shows it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mindvis.common.errors import InputError
from mindvis.evaluation import (
    Protocol,
    compare_reports,
    comparison_text,
    evaluate_folder,
    n_way_accuracy,
    text_table,
    write_report,
)
from mindvis.evaluation.audit import json_text
from mindvis.evaluation.audit_folders import Training
from mindvis.evaluation.checks import leakage_statements
from mindvis.evaluation.classifiers import Classifier
from mindvis.evaluation.compare import read_report
from mindvis.evaluation.networks import Preprocess
from mindvis.evaluation.report_page import report_html
from mindvis.evaluation.report_stages import num_trials, stage_curves, stages_behind
from mindvis.evaluation.statistics import paired_difference

N, K, SIDE = 4, 3, 16
PROTOCOL = Protocol(num_ways=(2, 5), top_k=(1, 2), num_bootstrap=500, nsd_suite=False)


@pytest.fixture
def classifier():
    """Six classes by the mean colour of the quarters of a picture: enough to tell the test's stimuli apart."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6)).eval()
    names = ("ant", "bee", "cat", "dog", "eel", "fox")
    return Classifier("tiny", network, Preprocess(8, 8), "0" * 64, torch.device("cpu"), names)


@pytest.fixture
def pictures(rng):
    """Stimuli of four flat quarters; decoded pictures are the stimuli with noise, more for the later ones."""
    stimuli = rng.integers(40, 216, (N, 2, 2, 3)).repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2)
    noise = rng.normal(0, 1, (N, K, SIDE, SIDE, 3)) * np.array([0, 5, 60, 120])[:, None, None, None, None]
    return stimuli.astype(np.uint8), np.clip(stimuli[:, None] + noise, 0, 255).astype(np.uint8)


def write_run(folder, stimuli, decoded, **more):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "stimulus_ids": np.arange(len(stimuli)),
        "class_ids": np.array([], int),
        "fmri_rows": np.arange(len(stimuli)),
    }
    np.savez(folder / "decoded.npz", decoded=decoded, stimuli=stimuli, **(arrays | more))
    return folder


@pytest.fixture
def run(tmp_path, pictures):
    """An output folder of `generate` with both controls and its settings."""
    stimuli, decoded = pictures
    folder = write_run(tmp_path / "run", stimuli, decoded)
    write_run(folder / "shuffled", stimuli, np.roll(decoded, 1, axis=0))
    write_run(folder / "mean_fmri", stimuli, np.repeat(decoded[:1], N, axis=0))
    use = {"stage_a_tuning": "test", "checkpoint_selection": "validation"}
    (folder / "generate.json").write_text(json.dumps({"seed": 3, "test_set_use": use}))
    return folder


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def test_report_of_a_run(run, classifier, pictures):
    """Figures with their controls; perfect pictures score one; the copying check and the leakage are stated."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, training_images=pictures[0])
    assert report.per_stimulus[0]["scores"]["2_way_top_1/tiny"] == 1.0
    figure, shuffled = report.figure("pairwise_pcc"), report.figure("pairwise_pcc", "shuffled")
    assert figure.value > 0.9 > shuffled.value and figure.chance == 0.5
    assert figure.low <= figure.value <= figure.high and figure.n == N and figure.num_samples == K
    assert {f.set for f in report.figures} == {"decoded", "shuffled", "mean_fmri"}
    assert report.copying["true_mean"] == pytest.approx(1.0) and report.copying["near_copies"] >= K
    assert [statement["touched"] for statement in report.leakage] == [True, False, None, True]


def test_figure_is_mean_and_deviation_over_sample_sets(run, classifier):
    """Mean, deviation and best follow from the similarities of the sample sets."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    with np.load(run / "decoded.npz") as file:
        difference = file["decoded"].astype(float) - file["stimuli"][:, None]
    of_sets = (difference**2).mean(axis=(0, 2, 3, 4))
    figure = report.figure("mse")
    assert figure.value == pytest.approx(of_sets.mean()) and figure.deviation == pytest.approx(of_sets.std(ddof=1))
    assert figure.best == pytest.approx(of_sets.min()) and not figure.larger_is_better


def test_files_of_a_report(run, classifier, tmp_path):
    """JSON by its schema, a CSV line a figure, a page without links to anywhere, a grid; the same twice."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    page = write_report(report, tmp_path / "out", masked_reconstruction=b"png")
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["schema"] == "mindvis.report/1" and len(content["figures"]) == len(report.figures)
    assert (tmp_path / "out" / "report.csv").read_text().count("\n") == len(report.figures) + 1
    text = page.read_text()
    assert "http" not in text.replace('http-equiv="', "") and text.count("data:image/") > N * (K + 1)
    assert "Stage A: masked reconstruction" in text and "$" not in text
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "audit.json",
        "grid_sorted.png",
        "report.csv",
        "report.html",
        "report.json",
    ]
    again = write_report(evaluate_folder(run, classifier=classifier, protocol=PROTOCOL), tmp_path / "again")
    assert (again.parent / "report.json").read_bytes() == (tmp_path / "out" / "report.json").read_bytes()


def test_pictures_are_ranked_best_first(run, classifier):
    """The order of the page is that of the main figure."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    scores = [report.per_stimulus[i]["scores"][report.main] for i in report.ranking()]
    assert scores == sorted(scores, reverse=True)


def test_a_control_scored_by_itself_is_called_one(run, classifier):
    """In the report and in the terminal; the decoded pictures are not."""
    (run / "shuffled" / "generate.json").write_text(json.dumps({"settings": {"control": "shuffled"}}))
    report = evaluate_folder(run / "shuffled", classifier=classifier, protocol=PROTOCOL)
    assert report.caveats[0].startswith("control shuffled: ") and report.caveats[0] in text_table(report)
    own = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    assert not any("the column `decoded` is not" in line for line in own.caveats)


def test_few_target_classes_are_counted(tmp_path, pictures, classifier):
    """Four stimuli of one class: chance is not what a decoder of that class scores."""
    stimuli, decoded = pictures
    alike = write_run(tmp_path / "alike", stimuli[[0, 0, 0, 0]], decoded)
    report = evaluate_folder(alike, classifier=classifier, protocol=PROTOCOL)
    assert any("4 stimuli have 1 target classes" in line for line in report.caveats)


def test_text_table_has_a_line_a_figure(run, classifier):
    """Controls and chance stand beside the decoded value."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    lines = text_table(report).splitlines()
    assert lines[0].split()[-3:] == ["shuffled", "mean_fmri", "chance"]
    assert lines[1].startswith("2_way_top_1/tiny") and lines[1].split()[-1] == "0.500"


def test_folders_of_pictures_give_the_same_report(run, classifier, pictures, tmp_path):
    """NAME-SAMPLE.png, NAME/SAMPLE.png and generate's own folder of pictures all equal the arrays."""
    stimuli, decoded = pictures
    for i in range(N):
        save(tmp_path / "true" / f"{i}.png", stimuli[i])
        save(tmp_path / "own" / "pictures" / str(i) / "stimulus.png", stimuli[i])
        for k in range(K):
            save(tmp_path / "flat" / f"{i}-{k}.png", decoded[i, k])
            save(tmp_path / "nested" / str(i) / f"{k}.png", decoded[i, k])
            save(tmp_path / "own" / "pictures" / str(i) / f"{k}.png", decoded[i, k])
    save(tmp_path / "own" / "grid.png", stimuli[0])
    wanted = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={}).figures
    for name, true in [("flat", "true"), ("nested", "true"), ("own", None)]:
        true = true and tmp_path / true
        found = evaluate_folder(tmp_path / name, classifier=classifier, protocol=PROTOCOL, stimuli=true)
        assert found.figures == wanted
        write_report(found, tmp_path / name)  # beside the pictures, which can still be read then
        assert (
            evaluate_folder(tmp_path / name, classifier=classifier, protocol=PROTOCOL, stimuli=true).figures == wanted
        )


def test_one_sample_a_stimulus(run, classifier, pictures):
    """No deviation and no consistency, and the report says why."""
    write_run(run, pictures[0], pictures[1][:, :1])
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    assert report.figure("ssim").deviation is None
    assert any("consistency skipped" in line for line in report.skipped)


def test_absent_weights_are_skipped_with_a_line(run, classifier, tmp_path):
    """lpips and Inception features without their files, and the suite of feature networks."""
    protocol = Protocol(
        num_ways=(2,),
        top_k=(1,),
        metrics=("mse", "lpips"),
        lpips_weights=tmp_path / "a.pth",
        fid=("2048",),
        features=dict.fromkeys(
            ("alexnet", "inception_v3", "clip_vit_l_14", "efficientnet_b1", "swav"), tmp_path / "b.pth"
        ),
        num_bootstrap=100,
    )
    report = evaluate_folder(run, classifier=classifier, protocol=protocol, controls={})
    skipped = {line.split(" skipped: ")[0] for line in report.skipped}
    assert {"pairwise_lpips", "fid_2048", "alexnet_2", "clip_vit_l_14", "swav"} <= skipped
    assert report.figure("pixcorr_425").value > 0.5 and report.figure("ssim_grey_425").value > 0.3


def test_scores_of_the_published_code_are_the_default(run, classifier, tmp_path, monkeypatch):
    """FID of 64 Inception features and LPIPS: where their weights are absent, a line each, and the other scores."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    protocol = Protocol(num_ways=(2,), top_k=(1,), nsd_suite=False, audit=False, num_bootstrap=100)
    report = evaluate_folder(run, classifier=classifier, protocol=protocol)
    for name, needed in (("pairwise_lpips", "alexnet"), ("fid_64", "nception")):
        [line] = [line for line in report.skipped if line.startswith(f"{name} skipped: ")]
        assert needed in line
    assert report.figure("pairwise_ssim").value > 0.5


def test_lpips_is_scored_where_its_weights_are(run, classifier, pictures, monkeypatch):
    """By default, with its identification; here with an AlexNet that has learnt nothing."""
    from torchvision.models import alexnet

    from mindvis.evaluation import similarity

    embedding = similarity.PerceptualEmbedding(alexnet(weights=None).eval(), similarity.lpips_heads())
    monkeypatch.setattr(similarity, "load_lpips", lambda weights: embedding)
    larger = [images.repeat(3, axis=-3).repeat(3, axis=-2) for images in pictures]  # enough for AlexNet
    write_run(run, *larger)
    protocol = Protocol(num_ways=(2,), top_k=(1,), nsd_suite=False, audit=False, num_bootstrap=100)
    report = evaluate_folder(run, classifier=classifier, protocol=protocol, controls={})
    assert report.figure("lpips").value > 0 and not report.figure("lpips").larger_is_better
    assert 0 <= report.figure("pairwise_lpips").value <= 1 and report.figure("pairwise_lpips").chance == 0.5


def test_the_class_seen_in_every_sample_is_named(run, classifier):
    """Beside the pictures, and in the JSON."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    assert [len(row["seen_as"]) for row in report.per_stimulus] == [K] * N
    best = report.per_stimulus[0]
    assert best["seen_as"][0] in best["class"]  # without noise it is seen as its stimulus is
    assert best["stimulus_seen_as"] == best["seen_as"][0]
    shown = report_html(report).split('id="pictures"')[1].split("</h2>")[1].split("<h2")[0]
    told = [part.split("</figcaption>")[0].split(">")[1] for part in shown.split("<figcaption")[1:]]
    rows = [report.per_stimulus[i] for i in report.ranking()]
    assert told == [name for row in rows for name in (row["stimulus_seen_as"], *row["seen_as"])]


def test_the_page_says_what_its_figures_mean(run, classifier):
    """A definition of every family of figures."""
    page = report_html(evaluate_folder(run, classifier=classifier, protocol=PROTOCOL))
    for word in ("n-way top-k", "pairwise", "fid", "consistency", "shuffled", "ridge"):
        assert f"<dt>{word}" in page


def test_the_trainings_behind_the_pictures_are_told(run, classifier, tmp_path):
    """Commands, dates, revisions, settings, trials and loss curves of both stages, the first one first."""
    for stage, before in (("pretrain_mbm", None), ("finetune_ldm", "pretrain_mbm")):
        folder = tmp_path / stage
        folder.mkdir()
        facts = {"stage": stage, "command": f"python scripts/{stage}.py", "started": "2026-01-02", "num_steps": 2}
        facts |= {"git_revision": "0123abc", "data": {"train": {"rows": 1200}}}
        (folder / "manifest.json").write_text(json.dumps(facts))
        encoder = f"encoder: {tmp_path / before}\n" if before else ""
        (folder / "config.yaml").write_text(f"{encoder}optim: {{lr: 0.25}}\n")
        (folder / "metrics.csv").write_text("step,epoch,train/loss,val/loss\n1,0,.5,\n2,0,.25,.75\n")
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    report.stages = stages_behind(tmp_path / "finetune_ldm")
    assert [stage["stage"] for stage in report.stages] == ["pretrain_mbm", "finetune_ldm"]
    assert num_trials(report.stages[1]) == "train 1200"
    curves = stage_curves(report.stages)
    assert all(png.startswith(b"\x89PNG") for png in curves.values()) and len(curves) == 2
    page = report_html(report, curves=curves)
    for told in ("scripts/finetune_ldm.py", "2026-01-02", "0123abc", "train 1200", "0.25", "curves of pretrain_mbm"):
        assert told in page
    assert json.loads(json_text(report.as_dict()))["stages"][0]["settings"]["optim"]["lr"] == 0.25
    assert stages_behind(None) == stages_behind(tmp_path / "published.pth") == []


def ridge_beside(run, stimuli, decoded, subject="sbj_1", of="sbj_1"):
    """What baseline_ridge wrote beside a run for one subject, the run being of another, or the same."""
    for folder, name in ((run, of), (run.parent / "baseline_ridge" / "latent", subject)):
        if folder != run:
            write_run(folder, stimuli, decoded)
        data = {"settings": {"name": "god", "root": "data/Kamitani/npz", "subjects": [name]}}
        (folder / "generate.json").write_text(json.dumps({"data": data, "settings": {"ldm": "demo"}}))
    return run.parent / "baseline_ridge"


def test_ridge_is_a_column(run, classifier, pictures, tmp_path):
    """Found beside the run, scored on the same stimuli, in table, page and differences; green is as before."""
    stimuli, decoded = pictures
    before = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    order = [2, 0, 3, 1]  # of all stimuli, in any order
    folder = ridge_beside(run, stimuli[order], decoded[order][:, :1])
    write_run(folder / "latent", stimuli[order], decoded[order][:, :1], stimulus_ids=np.array(order))
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    assert report.other_sets() == ["shuffled", "mean_fmri", "ridge_latent"]
    assert report.figure("mse", "ridge_latent").num_samples == 1
    own = ((decoded[:, 0].astype(float) - stimuli) ** 2).mean()
    assert report.figure("mse", "ridge_latent").value == pytest.approx(own)
    assert report.against("mse", "ridge_latent").n == N and "ridge_latent" in text_table(report)
    assert [d for d in report.differences if d.control != "ridge_latent"] == before.differences
    names = {figure.name for figure in report.figures}
    assert [report.beats_controls(name) for name in names] == [before.beats_controls(name) for name in names]
    page = write_report(report, tmp_path / "out").read_text()
    assert "<th>ridge, latent</th>" in page and "<td>ridge, latent</td>" in page
    write_run(folder / ".class.partial", stimuli, decoded)  # of a process that was killed
    named = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, baselines=[folder])
    assert named.figures == report.figures
    without = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, baselines=[])
    assert without.figures == before.figures


def test_ridge_of_other_pictures(run, classifier, pictures):
    """Another subject's is no column; that of pictures of another size is left out with a line, or refused if named."""
    stimuli, decoded = pictures
    folder = ridge_beside(run, stimuli, decoded[:, :1], of="sbj_2")
    assert "ridge_latent" not in evaluate_folder(run, classifier=classifier, protocol=PROTOCOL).other_sets()
    ridge_beside(run, stimuli[:, ::2, ::2], decoded[:, :1, ::2, ::2])
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    assert any(line.startswith("ridge_latent skipped: ") and "16 x 16 pixels" in line for line in report.skipped)
    with pytest.raises(InputError, match="4 true pictures of 8 x 8 pixels; needed: those of"):
        evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, baselines=[folder / "latent"])
    with pytest.raises(InputError, match="needed: what baseline_ridge wrote"):
        evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, baselines=[run.parent / "nowhere"])


def test_comparison_is_paired(run, classifier, pictures, tmp_path):
    """A better run on the same stimuli, in another order: the difference, its interval, and the sign."""
    stimuli, decoded = pictures
    better = write_run(
        tmp_path / "better", stimuli[::-1], np.repeat(stimuli[::-1, None], K, 1), stimulus_ids=np.arange(N)[::-1]
    )
    for folder in (run, better):
        write_report(evaluate_folder(folder, classifier=classifier, protocol=PROTOCOL), folder)
    lines = {line["name"]: line for line in compare_reports([run, better])}
    mse = lines["mse"]
    assert mse["value"] == 0.0 and mse["n"] == N and mse["low"] <= mse["difference"] <= mse["high"] < 0
    assert "pairwise_ssim" in comparison_text(list(lines.values()))
    with pytest.raises(InputError, match="run evaluate first"):
        compare_reports([run, tmp_path])


def test_a_run_is_compared_with_its_controls(run, classifier):
    """The controls scored beside a run are found in its report, by their folder, with their own figures."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    write_report(report, run)
    lines = {line["name"]: line for line in compare_reports([run, run / "shuffled"])}
    for name in ("mse", "pairwise_ssim"):
        assert lines[name]["value"] == pytest.approx(report.figure(name, "shuffled").value)
        assert lines[name]["reference"] == pytest.approx(report.figure(name).value)
    assert lines["mse"]["run"] == str(run / "shuffled") and "consistency_ssim" not in lines
    with pytest.raises(InputError, match="absent.*run evaluate first"):
        compare_reports([run, run / "absent"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("figures", None),
        ("figures", [3]),
        ("per_stimulus", None),
        ("per_stimulus", [{"stimulus_id": "0", "scores": {"mse": "low"}}]),
        ("per_stimulus", [{"stimulus_id": "0", "scores": {"mse": [1]}}]),
        ("per_control", {"shuffled": 3}),
        ("provenance", -1),
        ("settings", []),
    ],
)
def test_a_report_with_entries_of_another_kind_is_refused(tmp_path, name, value):
    """Edited by hand, or cut short: the line names the file and the entry."""
    (tmp_path / "report.json").write_text(json.dumps({"schema": "mindvis.report/1", name: value}))
    with pytest.raises(InputError, match=rf"report.json: entry {name}\S* is not that of a report"):
        read_report(tmp_path)


def test_the_columns_of_a_comparison_lie_under_each_other(run, classifier):
    """Names of figures and runs of any length leave every column straight."""
    write_report(evaluate_folder(run, classifier=classifier, protocol=PROTOCOL), run)
    head, *lines = comparison_text(compare_reports([run, run / "shuffled", run / "mean_fmri"])).splitlines()
    start = head.index("run")
    assert {line.index(str(run)) for line in lines} == {start}
    assert {len(line) for line in lines} == {len(head)}


def test_scoring_needs_neither_trainer_nor_log_nor_nifti():
    """Who has only pictures to score imports no Lightning, wandb or nibabel with the room."""
    code = "import sys, mindvis.evaluation; print(sorted({'pytorch_lightning', 'wandb', 'nibabel'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_leakage_that_was_not_recorded():
    """Silence is not innocence."""
    assert [statement["touched"] for statement in leakage_statements({})] == [None, None, None]
    assert leakage_statements({"test_set_use": {"normalisation": "joint"}})[2]["touched"] is True


def test_controls_of_other_stimuli_are_refused(run, classifier, pictures):
    """A control must be decoded for the same pictures."""
    write_run(run / "shuffled", pictures[0][::-1], pictures[1])
    with pytest.raises(InputError, match="true pictures of 'shuffled'"):
        evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)


def test_settings_that_cannot_be(run, classifier):
    """More ways than classes, and an unknown metric."""
    with pytest.raises(InputError, match="num_ways: found 50, need 2 to 6"):
        evaluate_folder(run, classifier=classifier, protocol=Protocol())
    with pytest.raises(InputError, match="metrics: found 'psnr'"):
        evaluate_folder(run, classifier=classifier, protocol=Protocol(metrics=("psnr",)))
    with pytest.raises(InputError, match="fid: found 'vgg', need some of classifier, .*, 64, 2048"):
        evaluate_folder(run, classifier=classifier, protocol=Protocol(fid=["vgg"]))
    with pytest.raises(InputError, match="features: found 'vgg', need some of alexnet"):
        evaluate_folder(run, classifier=classifier, protocol=Protocol(features={"vgg": "vgg.pth"}))
    for name in ("num_ways", "top_k"):
        with pytest.raises(InputError, match=f"{name}: found none, need one at least"):
            evaluate_folder(run, classifier=classifier, protocol=Protocol(**{name: []}))


def test_page_opens_in_a_browser(run, classifier, tmp_path):
    """Headless Chromium lays the page out and paints it: the screenshot has text, pictures and bars."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    page = write_report(report, tmp_path / "out")
    shot = tmp_path / "shot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,3200",
        f"--user-data-dir={tmp_path}/profile",
    ]
    command = [browser, *options, f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape[:2] == (3200, 1200)
    assert (pixels == np.array([0x2A, 0x6F, 0x97])).all(axis=-1).sum() > 500  # the bars' colour
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


def test_wandb_gets_tables_with_pictures(run, classifier, tmp_path):
    """An offline run: a row a stimulus with all its pictures, a row a figure, the values as summary."""
    wandb = pytest.importorskip("wandb")
    from mindvis.evaluation.open import log_report, picture_table

    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    table = picture_table(report)
    scores = set(report.per_stimulus[0]["scores"])
    assert len(table.data) == N and table.columns[:4] == ["stimulus_id", "class", "stimulus", "sample 0"]
    assert table.columns[3 + K] == report.main and set(table.columns[3 + K :]) == scores
    with wandb.init(mode="disabled", dir=tmp_path) as session:
        log_report(report, session)
        assert session.summary["evaluation/decoded/mse"] == report.figure("mse").value


def test_green_is_what_beats_the_controls(run, classifier, pictures, tmp_path):
    """A score far above chance is not green where the control scores as much, and is where it beats all of them."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    difference = report.against("pairwise_pcc", "shuffled")
    values = [
        np.array([row["scores"]["pairwise_pcc"] for row in rows])
        for rows in (report.per_stimulus, report.per_control["shuffled"])
    ]
    expected = paired_difference(*values, PROTOCOL.seed, PROTOCOL.num_bootstrap)
    assert (difference.value, difference.low, difference.high, difference.p) == pytest.approx(expected)
    assert report.beats_controls("pairwise_pcc") and difference.p_holm >= difference.p
    write_run(run / "shuffled", *pictures)
    equal = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    assert equal.figure("pairwise_pcc").low > 0.5 and not equal.beats_controls("pairwise_pcc")
    alone = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    assert not any(alone.beats_controls(figure.name) for figure in alone.figures)
    page = write_report(alone, tmp_path / "alone").read_text()
    assert 'class="beats"' not in page.split('id="pictures"')[0] and "No control beside these pictures" in page


def test_without_class_ids_pairwise_identification_heads_the_report(run, classifier, pictures):
    """With them n-way does; without pairwise measures there is nothing else."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    assert report.main == "pairwise_pcc"
    assert all(row["class"].startswith("classified as ") for row in report.per_stimulus)
    write_run(run, *pictures, class_ids=np.arange(N))
    named = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    assert named.main == "2_way_top_1/tiny" and named.per_stimulus[0]["class"] == "ant"


def test_what_every_picture_passes_is_not_shown(run, classifier):
    """Top 2 of 2 is 1 for any picture."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    names = {figure.name for figure in report.figures}
    assert "5_way_top_2/tiny" in names and "2_way_top_2/tiny" not in names


def test_annotated_classes_stand_beside_the_classifiers(run, classifier, pictures):
    """The target is the label then; labels of another numbering are left out, with a line."""
    stimuli, decoded = pictures
    seen = classifier.classify(stimuli).top_class
    labels = seen.copy()
    labels[0] = (labels[0] + 1) % 6
    write_run(run, stimuli, decoded, class_ids=labels)
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    expected = n_way_accuracy(classifier.classify(decoded[:, 0]).logits, labels, num_ways=5)
    scores = [row["scores"]["labelled_5_way_top_1/tiny"] for row in report.per_stimulus]
    assert scores[0] == pytest.approx(expected[0]) and any("in 3 of 4 true pictures" in c for c in report.caveats)
    write_run(run, stimuli, decoded, class_ids=(seen + 1) % 6)
    other = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={})
    assert not any(figure.name.startswith("labelled") for figure in other.figures)
    assert any("in 0 of 4 true pictures" in line for line in other.skipped)


def test_test_pictures_among_the_training_pictures_are_red(run, classifier, pictures, tmp_path):
    """All of them, some, none, and not known."""
    stimuli, _ = pictures
    other = 255 - stimuli
    for training, touched, count in (
        (stimuli, True, 4),
        (np.concatenate([stimuli[:1], other]), True, 1),
        (other, False, 0),
    ):
        report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={}, training_images=training)
        assert report.leakage[-1]["touched"] is touched and f"{count} of 4 test pictures" in report.leakage[-1]["text"]
    assert evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={}).leakage[-1]["touched"] is None
    seen = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={}, training_images=stimuli)
    page = write_report(seen, tmp_path / "out").read_text()
    assert 'among the training pictures: <span class="yes">yes</span>. 4 of 4 test pictures' in page


def test_copying_is_checked_in_features_too(run, classifier, pictures):
    """Beside the pixels, in those of the classifier: copies of training pictures lie nearer to them than the truth."""
    training = 255 - pictures[0]
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={}, training_images=training)
    found = report.copying["features"]["tiny"]
    assert found["num_decoded"] == N * K and -1 <= found["true_mean"] <= 1
    write_run(run, pictures[0], np.repeat(255 - pictures[0][:, None], K, axis=1))
    copies = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, controls={}, training_images=training)
    assert copies.copying["features"]["tiny"]["nearer_than_true"] == N * K
    assert copies.copying["features"]["tiny"]["decoded_mean"] == pytest.approx(1.0, abs=1e-5)


def test_the_audit_stands_in_the_report(run, classifier, tmp_path):
    """Its verdict in the terminal and on the page; four stimuli decide nothing; without it nothing is written."""
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL)
    assert report.audited.main.verdict == "undecided" and "audit: undecided" in text_table(report)
    page = write_report(report, tmp_path / "out").read_text()
    assert (
        '<h2 id="audit">' in page
        and json.loads((tmp_path / "out" / "audit.json").read_text())["verdict"] == "undecided"
    )
    without = replace(PROTOCOL, audit=False)
    page = write_report(evaluate_folder(run, classifier=classifier, protocol=without), tmp_path / "without").read_text()
    assert '<h2 id="audit">' not in page and not (tmp_path / "without" / "audit.json").exists()


def test_trained_and_unseen_classes_stand_apart(run, classifier, pictures, tmp_path):
    """Where training pictures have classes and the test has both kinds; else there is nothing to tell apart."""
    write_run(run, *pictures, class_ids=np.array([0, 0, 5, 5]))
    training = Training(255 - pictures[0], [0, 0, 1, 1])
    report = evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, training_images=training)
    found = {(each["set"], each["classes"]): each for each in report.by_training if each["name"] == "mse"}
    scores = [row["scores"]["mse"] for row in report.per_stimulus]
    assert found["decoded", "trained"]["value"] == pytest.approx(np.mean(scores[:2]))
    assert found["decoded", "unseen"]["value"] == pytest.approx(np.mean(scores[2:]))
    assert found["shuffled", "unseen"]["n"] == 2
    page = write_report(report, tmp_path / "out").read_text()
    assert "unseen classes" in text_table(report) and "unseen classes" in page
    both = Training(255 - pictures[0], [0, 0, 5, 5])
    assert not evaluate_folder(run, classifier=classifier, protocol=PROTOCOL, training_images=both).by_training
