"""evaluate: a bundle on a labelled data set, under one patch."""

from __future__ import annotations

from pathlib import Path

from zmask_export.artifacts.files import require_writable, write_text
from zmask_export.artifacts.signature import KeySource, key_bytes
from zmask_export.attack import patch as patches
from zmask_export.attack.placement import require_fits
from zmask_export.cluster.pool import Cluster
from zmask_export.errors import UsageError
from zmask_export.evaluate.page import render
from zmask_export.evaluate.pages import scores_page
from zmask_export.evaluate.scores import PASSES, Scores, evaluate, table
from zmask_export.evaluate.shards import Job, judge_on_cluster
from zmask_export.pipeline.evaluate_data import open_labelled, task_of
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.runtime.protected import load
from zmask_export.spec import Policy


def evaluate_bundle(
    bundle: Path,
    data: Path,
    patch: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    seed: int = 0,
    resamples: int = 1000,
    html: Path | None = None,
    cluster: Cluster | None = None,
    verify_key: KeySource | None = None,
    reporter: Reporter | None = None,
) -> Scores:
    """Measure a bundle through its runner.

    Args:
        bundle: the folder that ``build`` wrote.
        data: data set with label maps, or for a detector with boxes; see ``data.layouts``.
        patch: patch to attack with.
        split: of the data set.
        limit: at most this many images, spread evenly.
        seed: of the patch's places and of the bootstrap.
        resamples: of the bootstrap.
        html: where to write the same as a page; None writes none.
        cluster: whose workers run the bundle; None runs it in this process.
        verify_key: public key that the bundle must be signed with.
        reporter: shows progress.

    Raises:
        UsageError: the bundle's policy never masks, so there is nothing to measure.
        DatasetError: the data set has no labels for the network's task, or other classes.
        BundleError, PatchError, ImageError, OutputError.
        BackendError: a worker was lost again and again.
    """
    reporter = reporter or Silent()
    if html is not None:
        require_writable(html)
    key = None if verify_key is None else key_bytes(verify_key)
    engine = load(bundle, backend="onnxruntime", verify_key=key)
    if engine.manifest.policy is Policy.DETECT:
        raise UsageError(
            "A bundle of policy detect never masks.", fix="Build with --policy gated or mask."
        )
    manifest = engine.manifest
    attack = patches.load(patch)
    require_fits((attack.shape[1], attack.shape[2]), manifest.input_size)
    root = data if cluster is None else data.absolute()
    labelled = open_labelled(
        root, split, task=task_of(manifest), classes=len(manifest.classes),
        size=manifest.input_size, limit=limit,
    )  # fmt: skip
    samples = labelled.samples
    with reporter.bar("evaluating", PASSES * len(samples)) as advance:
        if cluster is None:
            scores = evaluate(
                engine, samples, labelled.task, attack,
                seed=seed, resamples=resamples, on_image=advance,
            )  # fmt: skip
        else:
            job = Job(bundle.absolute(), manifest, samples, labelled.task, attack, seed, key)
            judged = judge_on_cluster(cluster, job, on_image=advance)
            scores = table(
                judged, labelled.task, manifest.threshold, seed=seed, resamples=resamples
            )
    if html is not None:
        title = f"{manifest.name} under {patch.name}, on {data.resolve().name} {split}"
        write_text(html, render(scores_page(title, scores)))
    return scores
