"""Draw the pictures of docs that need no data: ``python docs/pictures/draw.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

mpl.rcParams.update({"svg.hashsalt": "virtualfs", "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False, "axes.spines.left": False})  # fmt: skip
BLUE, RED, GREY = "#0969da", "#cf222e", "#8c959f"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}
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


def windows() -> None:
    figure, axes = plt.subplots(figsize=(7.2, 3.1))
    events = {8: 4, 9: 1, 10.4: 6, 11: 2, 12: 5, 12.7: 9}
    for at, value in events.items():
        axes.plot(at, 3.2, "o", color=BLUE, markersize=9)
        axes.annotate(str(value), (at, 3.2), (0, 9), textcoords="offset points", ha="center")
    axes.axvline(12, color="black", linewidth=1)
    axes.annotate("t = 12:00", (12, 3.95), (4, 0), textcoords="offset points")
    for row, (first, last, from_in, to_in, text) in enumerate(
        [
            (9, 12, True, False, "[t - 3h, t): 1 + 6 + 2 = 9"),
            (9, 12, False, True, "(t - 3h, t], inclusive: 6 + 2 + 5 = 13"),
            (8, 11, True, False, "[t - 3h, t), offset 1h: 4 + 1 + 6 = 11"),
        ]
    ):
        height = 2.3 - row * 0.9
        colour = RED if to_in else BLUE
        axes.plot([first, last], [height, height], color=colour, linewidth=4, alpha=0.6,
                  solid_capstyle="butt")  # fmt: skip
        for at, is_in in ((first, from_in), (last, to_in)):
            axes.plot(at, height, "o", color=colour, markersize=8,
                      markerfacecolor=colour if is_in else "white")  # fmt: skip
        axes.annotate(text, (last + 0.15 if last == 12 else 12.15, height), va="center")
    axes.set_yticks([3.2], ["rows"])
    axes.set_ylim(0, 4.2)
    hours(axes, 8, 15)
    save(figure, "windows")


def leaks() -> None:
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 2.6))
    titles = ("written later", "the row itself", "no times at all")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xlim=(8.6, 13.4), ylim=(-0.2, 2.2), yticks=[], title=title)
        axes.set_xticks([9, 11, 13], ["9:00", "11:00", "13:00"])
        axes.axvline(11, color="black", linewidth=1)
    late, itself, static = panels
    late.plot([9.8, 9.8], [1, 1], "o", color=BLUE, markersize=9)
    late.annotate("happened", (9.8, 1.2), ha="center")
    late.plot(12.4, 1, "o", color=RED, markersize=9)
    late.annotate("written", (12.4, 1.2), ha="center", color=RED)
    late.annotate("", (12.2, 1), (10, 1), arrowprops={"arrowstyle": "->", "color": RED})
    late.annotate("in the table by its event time,\nunknown to anybody at t", (11, 0.25),
                  ha="center", va="center", bbox=PAPER)  # fmt: skip
    itself.plot([9.4, 10.2], [1, 1], "o", color=BLUE, markersize=9)
    itself.plot(11, 1, "o", color=RED, markersize=11)
    itself.annotate("the flight that is predicted,\nwith its delay", (11.15, 1.55), color=RED)
    itself.plot([9, 11], [0.6, 0.6], color=RED, linewidth=4, alpha=0.6, solid_capstyle="butt")
    itself.annotate("(t - 2h, t]", (10, 0.2), ha="center", color=RED)
    static.plot(12.6, 1, "o", color=RED, markersize=9)
    static.annotate("written over at 12:36", (12.6, 1.2), ha="center", color=RED)
    for at in (9.2, 10.1, 11):
        static.annotate(
            "", (at, 0.35), (12.5, 0.9),
            arrowprops={"arrowstyle": "->", "color": RED, "linestyle": ":"},
        )  # fmt: skip
    static.annotate("every instant gets today's value", (11, 0.05), ha="center", bbox=PAPER)
    figure.tight_layout()
    save(figure, "leaks")


def across() -> None:
    figure, axes = plt.subplots(figsize=(7.6, 2.9))
    axes.axis("off")
    axes.set(xlim=(0, 10), ylim=(-0.4, 4))

    def box(x: float, y: float, text: str, colour: str, width: float = 2.3) -> None:
        axes.add_patch(
            plt.Rectangle((x, y), width, 0.8, facecolor="white", edgecolor=colour, linewidth=1.5)
        )
        axes.annotate(text, (x + width / 2, y + 0.4), ha="center", va="center")

    def arrow(start: tuple[float, float], end: tuple[float, float], text: str, colour: str) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour})
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.12)
        axes.annotate(text, middle, ha="center", color=colour, fontsize=8)

    box(0, 1.6, "spine\nkeys, times, label", GREY)
    for height, name in ((3, "PostgreSQL"), (1.6, "DuckDB, files"), (0.2, "PostgreSQL 2")):
        box(4, height, name, BLUE, 2)
        arrow((2.35, 2), (3.95, height + 0.4), "keys, times" if height == 3 else "", GREY)
        arrow((6.05, height + 0.4), (7.6, 2), "Arrow" if height == 3 else "", BLUE)
    box(7.65, 1.6, "this process\nby row id", "black", 2.3)
    axes.plot([1.1, 1.1, 8.8], [1.6, -0.25, -0.25], ":", color=GREY)
    axes.annotate("", (8.8, 1.55), (8.8, -0.25),
                  arrowprops={"arrowstyle": "->", "color": GREY, "linestyle": ":"})  # fmt: skip
    axes.annotate("all other columns stay here", (5, -0.15), ha="center", color=GREY, fontsize=8)
    save(figure, "across")


if __name__ == "__main__":
    point_in_time()
    late_data()
    ttl()
    windows()
    leaks()
    across()
