"""Draw the pictures of docs/point-in-time.md: ``python docs/pictures/draw.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

mpl.rcParams.update({"svg.hashsalt": "virtualfs", "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False, "axes.spines.left": False})  # fmt: skip
BLUE, RED, GREY = "#0969da", "#cf222e", "#8c959f"
FOLDER = Path(__file__).parent


def hours(axes: plt.Axes, first: int, last: int) -> None:
    axes.set_xlim(first - 0.4, last + 0.4)
    axes.set_xticks(range(first, last + 1), [f"{hour}:00" for hour in range(first, last + 1)])


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def point_in_time() -> None:
    figure, axes = plt.subplots(figsize=(7.2, 2.3))
    readings = {8: "61°", 9: "63°", 10.5: "66°", 12: "70°"}
    for at, value in readings.items():
        axes.plot(at, 1, "o", color=BLUE, markersize=9)
        axes.annotate(value, (at, 1), (0, 9), textcoords="offset points", ha="center")
    for at, winner in ((9.7, 9), (10.5, 10.5), (11.8, 10.5)):
        axes.plot(at, 0, "s", color="black")
        axes.annotate("", (winner, 0.9), (at, 0.08), arrowprops={"arrowstyle": "->", "color": BLUE})
        axes.annotate(readings[winner], (at, 0), (0, -15), textcoords="offset points", ha="center")
    axes.annotate(
        "", (12, 0.9), (11.8, 0.08),
        arrowprops={"arrowstyle": "->", "color": RED, "linestyle": ":"},
    )  # fmt: skip
    axes.annotate("nearer, but not known yet", (11.95, 0.45), (8, 0), textcoords="offset points",
                  color=RED, va="center")  # fmt: skip
    axes.set_yticks([0, 1], ["spine", "readings"])
    axes.set_ylim(-0.5, 1.5)
    hours(axes, 8, 13)
    save(figure, "point_in_time")


def late_data() -> None:
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    axes.plot([8, 12], [8, 12], color=GREY, linewidth=0.8)
    axes.annotate("written at once", (11.3, 11.3), (4, -14), textcoords="offset points",
                  color=GREY)  # fmt: skip
    axes.axvspan(8, 10, color=BLUE, alpha=0.08)
    axes.fill_between([8, 10], 8, 10, color=BLUE, alpha=0.16)
    for happened, written, colour in ((8.4, 8.5, BLUE), (9.3, 9.6, BLUE), (9.5, 11, RED)):
        axes.plot(happened, written, "o", color=colour, markersize=9)
    axes.annotate("happened at 9:30,\nwritten at 11:00", (10.08, 10.9), color=RED)
    axes.axvline(10, color="black", linewidth=1)
    axes.annotate("t = 10:00", (10, 8.1), (4, 0), textcoords="offset points")
    axes.annotate('late_data="include":\nall left of t', (8.05, 11.75), va="top")
    axes.annotate('late_data="exclude":\nthe darker part', (8.05, 9.9), va="top")
    ticks = range(8, 13)
    axes.set_xticks(ticks, [f"{hour}:00" for hour in ticks])
    axes.set_yticks(ticks, [f"{hour}:00" for hour in ticks])
    axes.set(xlim=(8, 12), ylim=(8, 12), xlabel="event timestamp", ylabel="created timestamp")
    save(figure, "late_data")


def ttl() -> None:
    figure, axes = plt.subplots(figsize=(7.2, 2.1))
    for at, value, end in ((8, "61°", 10), (10, "64°", 13)):
        axes.plot(at, 1, "o", color=BLUE, markersize=9)
        axes.annotate(value, (at, 1), (0, 9), textcoords="offset points", ha="center")
        axes.plot([at, end], [0.55, 0.55], color=BLUE, linewidth=6, solid_capstyle="butt")
    axes.plot([13, 14.4], [0.55, 0.55], color=RED, linewidth=6, solid_capstyle="butt")
    axes.annotate("61° counts", (9, 0.2), ha="center")
    axes.annotate("64° counts, for three hours", (11.5, 0.2), ha="center")
    axes.annotate("NULL: too old", (13.7, 0.2), ha="center", color=RED)
    axes.set_yticks([0.55, 1], ["value", "readings"])
    axes.set_ylim(0, 1.4)
    hours(axes, 8, 14)
    save(figure, "ttl")


if __name__ == "__main__":
    point_in_time()
    late_data()
    ttl()
