"""A study's report with made-up numbers."""

from __future__ import annotations

from zmask_export.evaluate.bootstrap import Estimate
from zmask_export.evaluate.plan import LeftOut
from zmask_export.evaluate.quality import Detection, Row
from zmask_export.evaluate.report import SCHEMA_VERSION, NetworkReport, StudyReport, findings


def estimate(value: float | None) -> Estimate:
    ends = (None, None) if value is None else (value - 0.02, value + 0.02)
    return Estimate(value=value, low=ends[0], high=ends[1], images=101)


def made_row(
    attack: str,
    miou: dict[str, float],
    auc: dict[str, float] | None = None,
    value: float | None = None,
) -> Row:
    return Row(
        attack=attack,
        value=value,
        miou={name: estimate(number) for name, number in miou.items()},
        detection={
            name: Detection(
                auc=estimate(number), fpr_at_tpr95=estimate(0.1), fpr_at_tpr99=estimate(0.2)
            )
            for name, number in (auc or {}).items()
        },
        flagged=estimate(0.97),
        mask_iou=estimate(0.81),
        covered=estimate(0.0312),
        recovered=estimate(None),
    )


def made_network(name: str = "icnet", lgs: float = 0.5, weak: float = 0.57) -> NetworkReport:
    """A network with everything; LGS reaches ``lgs`` under L, Z-Mask ``weak`` at alpha 0.5."""
    scores = {"zmask": 1.0, "hn": 0.9, "fpda": 0.8}
    return NetworkReport(
        name=name,
        model="icnet",
        source="bundle",
        runner="onnxruntime-cpu",
        threshold=0.05,
        input_size=(360, 480),
        images=101,
        table=(
            made_row("None", {"zmask": 0.60, "masknet": 0.59, "lgs": 0.58, "none": 0.60}),
            made_row(
                "L",
                {"zmask": 0.57, "masknet": 0.53, "lgs": lgs, "none": 0.46, "oracle": 0.58},
                scores,
            ),
        ),
        beta=tuple(
            made_row(
                f"beta {b}",
                {"zmask": 0.6 - b / 20, "lgs": 0.6 - b / 10, "none": 0.6 - b / 7},
                {"zmask": min(1, 0.9 + b / 7), "hn": 0.5 + b / 3, "fpda": 0.6 + b / 4},
                b,
            )
            for b in (0.2, 0.6, 1.0)
        ),
        alpha={
            "mask": tuple(
                made_row(f"mask {a}", {"zmask": m, "none": 0.5}, {"zmask": 0.9}, a)
                for a, m in ((0.0, 0.59), (0.5, weak), (1.0, 0.57))
            ),
            "flag": (made_row("flag 0.2", {"zmask": 0.58, "none": 0.58}, {"zmask": 0.6}, 0.2),),
        },
        roc={"L": {"zmask": ((0, 0), (0, 1), (1, 1)), "hn": ((0, 0), (0.1, 0.7), (1, 1))}},
        left_out=(LeftOut(what="patch S", why="patches/S.png is not there"),),
    )


def made_detector() -> NetworkReport:
    """The same network as a detector: what was mIoU is mAP@0.5, and half of it mAP@[.5:.95]."""

    def as_map(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return tuple(row.model_copy(update={"miou": {}, "map_50": row.miou}) for row in rows)

    def strict(row: Row) -> Row:
        halves = {name: estimate((found.value or 0) / 2) for name, found in row.map_50.items()}
        return row.model_copy(update={"map_50_95": halves})

    network = made_network("retinanet")
    return network.model_copy(
        update={
            "task": "detection",
            "table": tuple(strict(row) for row in as_map(network.table)),
            "beta": as_map(network.beta),
            "alpha": {name: as_map(rows) for name, rows in network.alpha.items()},
        }
    )


def made_report(
    network: NetworkReport | None = None, about: str = "ICNet on CamVid"
) -> StudyReport:
    network = network or made_network()
    return StudyReport(
        schema_version=SCHEMA_VERSION,
        tool_version="1.2.3",
        about=about,
        dataset="camvid",
        split="val",
        seed=0,
        resamples=1000,
        quick=False,
        networks=(network,),
        left_out=(LeftOut(what="ddrnet", why="engines/ddrnet is not there"),),
        findings=tuple(findings(network)),
    )
