"""What a leak in a window's boundary promises, and what the model then delivers.

Three training sets of the same features for the same flights, predicted at the hour of departure:

* naive: windows end at the hour inclusively, so a flight finds its own delay among its features;
* exclusive: windows end before the hour, but hold delays of planes that had not left yet;
* known: only what had been written by the hour counts (``late_data="exclude"``).

Run as ``python leakage.py`` in this folder, after ``python load.py``; prints the numbers and draws
``leakage.svg``. Needs scikit-learn and matplotlib.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import virtualfs as vfs

FOLDER = Path(__file__).parent
SPINE = """
SELECT carrier, origin, dep_delay AS delay, hour, time_hour AS event_timestamp
FROM flights WHERE dep_delay IS NOT NULL
ORDER BY event_timestamp, carrier, origin, flight, tailnum
"""
LATE = 15
"""Minutes from which on a flight is late."""
TRAIN = 0.75
"""Share of the year that the model learns from; it is tried on the rest."""


def training_sets(folder: Path) -> dict[str, Any]:
    """Return the three training sets as pandas frames."""
    definitions = _definitions(folder)
    views = [definitions.carrier_delays, definitions.airport_delays]
    inclusive = [view.model_copy(update={"boundary": "inclusive"}) for view in views]
    with vfs.FeatureStore(folder) as store:

        def frame(of: list[Any], late_data: Any) -> Any:
            dataset = store.get_historical_features(
                SPINE, of, late_data=late_data, full_feature_names=True
            )
            return dataset.to_pandas()

        return {
            "naive": frame(inclusive, "include"),
            "exclusive": frame(views, "include"),
            "known": frame(views, "exclude"),
        }


def measured(frames: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return, by training set, what its features and a small model on them are worth.

    ``correlation`` is that of the delay with the mean delay of the airport's last hour.
    ``promised`` is the model's AUC on the last months of its own training set, ``delivered`` its
    AUC on the same flights with the features that were truly known when they had to be predicted.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    found = {}
    for name, frame in frames.items():
        inputs = [column for column in frame if "__" in column] + ["hour"]
        is_late = frame["delay"] > LATE
        cut = int(len(frame) * TRAIN)
        model = HistGradientBoostingClassifier(random_state=0)
        model.fit(_numbers(frame[inputs][:cut]), is_late[:cut])

        def auc(of: Any, model: Any = model, inputs: Any = inputs, cut: int = cut) -> float:
            chances = model.predict_proba(_numbers(of[inputs][cut:]))[:, 1]
            return float(roc_auc_score(of["delay"][cut:] > LATE, chances))

        hour = frame["airport_delays__dep_delay_mean_1h"].astype("float64")
        found[name] = {
            "correlation": float(hour.corr(frame["delay"].astype("float64"))),
            "promised": auc(frame),
            "delivered": auc(frames["known"]),
        }
    return found


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """Draw what was promised beside what was delivered."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "leakage", "font.family": "sans-serif"})
    import matplotlib.pyplot as plt

    titles = {
        "naive": "naive\nwindow holds the flight itself",
        "exclusive": "exclusive\nholds delays not yet known",
        "known": 'truly known\nlate_data="exclude"',
    }
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    places = range(len(found))
    for shift, key, colour in ((-0.2, "promised", "#c9a227"), (0.2, "delivered", "#2a6f97")):
        heights = [item[key] for item in found.values()]
        bars = axes.bar([place + shift for place in places], heights, 0.38, color=colour, label=key)
        axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    axes.axhline(0.5, color="#888888", linewidth=0.8, linestyle=":")
    axes.text(2.45, 0.508, "chance", color="#666666", fontsize=8, ha="right")
    axes.set_xticks([*places], [titles[name] for name in found], fontsize=9)
    axes.set_ylim(0.45, 1.0)
    axes.set_ylabel("AUC, flights later than 15 min")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def _definitions(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("flights_features", folder / "features.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _numbers(frame: Any) -> Any:
    return frame.astype("float64").fillna(float("nan"))


def main(folder: Path = FOLDER, picture: Path | None = None) -> dict[str, dict[str, float]]:
    """Build the training sets, print what they are worth, and draw it."""
    found = measured(training_sets(folder))
    print(f"{'':12}{'correlation':>12}{'AUC promised':>14}{'AUC delivered':>15}")
    for name, item in found.items():
        numbers = f"{item['correlation']:12.3f}{item['promised']:14.3f}{item['delivered']:15.3f}"
        print(f"{name:12}{numbers}")
    draw(found, picture or folder / "leakage.svg")
    return found


if __name__ == "__main__":
    main(picture=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
