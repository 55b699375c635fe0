"""The figures of benchmark/report.py, drawn from stored results; what has none is not drawn."""

import matplotlib
import numpy as np
import report
from experiments import HORIZONS
from report import NAMES, TASKS, all_starts, curve_shift, final, return_and_percent
from scipy.stats import bootstrap

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"flexplore": "#1f6fb4", "dlpa_like": "#e07b1a", "plain": "#8a4fa3", "plain_dlpa_like": "#c2185b"}
GREEN, DARK, GREY = "#3a9d4d", "#333333", "#9a9a9a"
STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.spines.top": False, "figure.dpi": 110,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "axes.edgecolor": "#777777",
}  # fmt: skip


def interval(values):
    """95 % bootstrap interval of the mean over the first axis -> (low, high)."""
    if len(values) < 2:
        return np.mean(values, axis=0), np.mean(values, axis=0)
    return bootstrap((values,), np.mean, axis=0, method="percentile", rng=0).confidence_interval


def grid_of(tasks, columns, width, height, rows_each=1):
    """Axes (rows_each, task), in rows of `columns` tasks, with room for a legend on top -> figure, axes."""
    columns = min(len(tasks), columns)
    blocks = -(-len(tasks) // columns)
    size = max(6, width * columns), height * rows_each * blocks + 0.5
    figure, axes = plt.subplots(rows_each * blocks, columns, figsize=size, squeeze=False, layout="constrained")
    axes = axes.reshape(blocks, rows_each, columns).transpose(1, 0, 2).reshape(rows_each, -1)
    for ax in axes[:, len(tasks) :].flat:
        ax.axis("off")
    return figure, axes


def legend(figure, ax, columns=6):
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


def show_values(ax, x, values, colour, **label):
    """Each seed as a small dot, their mean and its interval as a large one."""
    low, high = interval(values)
    ax.plot(np.full(len(values), x), values, ".", color=colour, alpha=0.35, markersize=5)
    ax.plot([x, x], [low, high], color=colour, linewidth=1.6)
    ax.plot(x, np.mean(values), "o", color=colour, markersize=5.5, **label)


def return_limits(ax, task, headroom=0.08):
    """The range from random play to the limit, with some room."""
    random, limit = TASKS[task].random[0], TASKS[task].limit[1]
    ax.set_ylim(random - 0.15 * (limit - random), limit + headroom * (limit - random))


def show_curves(ax, results, experiment, task, names, i=0, over="steps"):
    """Return (i = 0) or success (1) on the way: means over seeds with intervals; final means as diamonds.

    Both are moved to the level of all starts: their own are easier or harder.
    """
    runs_of = {v: runs for v in names if (runs := results.runs(experiment, task, v))}
    shift = curve_shift(task, [run for runs in runs_of.values() for run in runs])[i]
    for variant, runs in runs_of.items():
        values = np.array([[return_and_percent(point)[i] for point in run["curve"]] for run in runs]) + shift
        x = [point["step"] for point in runs[0]["curve"]]
        if over == "minutes":
            x = np.mean([[point["wall_seconds"] / 60 for point in run["curve"]] for run in runs], axis=0)
        last, colour, label = all_starts(task, runs)[i].mean(), COLOURS[variant], names[variant]
        ax.plot(x, values.mean(axis=0), color=colour, linewidth=1.5, label=label)
        ax.fill_between(x, *interval(values), color=colour, alpha=0.2, linewidth=0)
        ax.plot(x[-1], last, "D", color=colour, markersize=5, markeredgecolor="white", clip_on=False, zorder=3,
                label=f"{label}, final")  # fmt: skip
    ax.set_xlim(left=0)


def curves(results, over):
    """Return and success of greedy episodes against environment steps or minutes, and the final evaluation."""
    tasks = results.tasks("table")
    figure, axes = grid_of(tasks, 4, 2.9, 2.05, rows_each=2)
    for task, upper, lower in zip(tasks, *axes):
        t = TASKS[task]
        for i, ax in enumerate((upper, lower)):
            limit = (t.limit, t.limit_success)[i]
            ax.axhspan(*limit, color=GREEN, alpha=0.25, linewidth=0)
            ax.axhline(limit[1], color=GREEN, linewidth=1, label="limit")
            published = (t.published_return[0], t.published_success)[i]
            ax.axhline(published, color=DARK, linewidth=1, linestyle=(0, (4, 3)), label="best published")
            ax.axhline(t.random[i], color=GREY, linewidth=1, linestyle=":", label="random play")
            show_curves(ax, results, "table", task, NAMES, i, over)
        seeds = {len(results.runs("table", task, v)) for v in NAMES} - {0}
        upper.set_title(f"{t.title} ({' or '.join(map(str, sorted(seeds)))} seed{'s' * (seeds != {1})})")
        upper.tick_params(labelbottom=False)
        return_limits(upper, task)
        lower.set(ylim=(-4, 104), xlabel="environment steps" if over == "steps" else "minutes, with evaluations")
    for ax, label in ((axes[0, 0], "return"), (axes[1, 0], "success, %")):
        ax.set_ylabel(label)
    legend(figure, axes[0, 0], 7 if len(tasks) > 3 else 4)
    return figure


def smoothing(results):
    tasks = results.tasks("smoothing")
    figure, axes = grid_of(tasks, 4, 2.9, 2.6)
    for task, ax in zip(tasks, axes[0]):
        for x, variant in enumerate(report.SMOOTHING):
            if runs := results.runs("smoothing", task, variant):
                show_values(ax, x, final(runs)[0], COLOURS["flexplore"])
        ax.set_title(TASKS[task].title)
        ax.set_xticks(range(len(report.SMOOTHING)), ["always", "0.25", "0.5", "0.75", "never"])
        ax.margins(0.1, 0.15)
    axes[0, 0].set_ylabel("final return")
    figure.supxlabel("smoothing starts after this share of the run", fontsize=9)
    return figure


def flexibility(results):
    tasks = results.tasks("flexibility")
    figure, axes = grid_of(tasks, 2, 4.6, 3.3)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(report.FLEXIBILITIES)))
    for task, ax in zip(tasks, axes[0]):
        for kind, marker in (("conditional", "o"), ("marginal", "^")):
            for x, colour in zip(report.FLEXIBILITIES, colours):
                runs = results.runs("flexibility", task, report.flexibility_variant(kind, x))
                if not runs or (x == "0" and kind == "marginal"):  # without L_ex the two are one
                    continue
                errors, returns = np.array([report.consistency_error(run) for run in runs]), final(runs)[0]
                errors, returns = errors[~np.isnan(errors)], returns[~np.isnan(errors)]
                label = f"λ = {x}" + f", {kind}" * (x != "0")
                ax.plot(errors, returns, marker, color=colour, alpha=0.3, markersize=4)
                ax.plot(np.mean(errors), np.mean(returns), marker, color=colour, markersize=8, label=label)
        ax.set(title=TASKS[task].title, xscale="log", xlabel="consistency error of the dynamics")
    axes[0, 0].set_ylabel("final return")
    legend(figure, axes[0, 0], 5)
    return figure


def components(results):
    tasks = results.tasks("components")
    left_out = [v for v in report.COMPONENTS if v != "flexplore"]
    figure, axes = plt.subplots(1, len(left_out), figsize=(11.6, 0.42 * len(tasks) + 1.2), sharey=True, sharex=True,
                                layout="constrained", squeeze=False)  # fmt: skip
    for variant, ax in zip(left_out, axes[0]):
        ax.axvline(0, color=DARK, linewidth=1)
        for y, task in enumerate(tasks):
            full, without = (TASKS[task].score(all_starts(task, results.runs("components", task, v))[0])
                             for v in ("flexplore", variant))  # fmt: skip
            if len(full) and len(without):
                difference = without.mean() - full.mean()
                resamples = np.random.default_rng(0)
                means = [resamples.choice(x, (9999, len(x))).mean(axis=1) for x in (without, full)]
                ax.plot(np.percentile(means[0] - means[1], [2.5, 97.5]), [y, y], color=COLOURS["flexplore"])
                ax.plot(difference, y, "o", color=COLOURS["flexplore"], markersize=5.5)
        ax.set_title(report.COMPONENTS[variant])
        ax.grid(axis="y", visible=False)
        ax.locator_params(axis="x", nbins=4)
    axes[0, 0].set_yticks(range(len(tasks)), [TASKS[task].title for task in tasks])
    axes[0, 0].invert_yaxis()
    figure.supxlabel("change of the score by leaving it out (0 = random play, 1 = limit)", fontsize=9)
    return figure


def choices(results):
    """Learning curves with our choices and without most of them."""
    tasks = results.tasks("choices")
    figure, axes = grid_of(tasks, 5, 2.5, 2.6)
    for task, ax in zip(tasks, axes[0]):
        show_curves(ax, results, "choices", task, report.CHOICES)
        ax.axhline(TASKS[task].limit[1], color=GREEN, linewidth=1, label="limit")
        ax.axhline(TASKS[task].random[0], color=GREY, linewidth=1, linestyle=":", label="random play")
        ax.set(title=TASKS[task].title, xlabel="environment steps")
        return_limits(ax, task)
    axes[0, 0].set_ylabel("return")
    legend(figure, axes[0, 0], 6 if len(tasks) > 2 else 3)
    return figure


def exploration(results):
    tasks, variants = results.tasks("exploration"), {"with_mi": "with MI reward", "without_mi": "without"}
    ticks = "both", "random", "MI", "η 0.1", "η 1", "neither"
    size = 8.2, 2.5 * len(tasks) + 0.4
    figure, axes = plt.subplots(len(tasks), 3, figsize=size, layout="constrained", squeeze=False)
    for task, (*pictures, right) in zip(tasks, axes):
        first = {name: runs[0] for v, name in variants.items() if (runs := results.states("exploration", task, v))}
        if not first:
            continue
        if task in report.PLANE:
            points, rewards = report.coordinates(task, first.values()), [run["r"] for run in first.values()]
        else:
            points, rewards = embedding([*first.values()])
        for ax, p, r, name in zip(pictures, points, rewards, first):
            good = r >= np.quantile(np.concatenate(rewards), 0.9)
            ax.plot(*p[~good].T, ".", color=COLOURS["flexplore"], markersize=2.5, alpha=0.35)
            ax.plot(*p[good].T, ".", color=COLOURS["dlpa_like"], markersize=3, label="rewards in the top tenth")
            if task in report.PLANE:
                circle = plt.Circle((0, 0), 0.2, fill=False, color=DARK, linewidth=1.2, label="target in reach")
                ax.add_patch(circle)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{TASKS[task].title}, {name}")
        middle = (np.concatenate(points).max(axis=0) + np.concatenate(points).min(axis=0)) / 2
        reach = 1.05 * np.abs(np.concatenate(points) - middle).max()
        for ax in pictures:
            ax.set(xlim=middle[0] + [-reach, reach], ylim=middle[1] + [-reach, reach])
            ax.set_box_aspect(1)
            ax.set_ylabel("target − agent" if task in report.PLANE else "t-SNE", fontsize=8)
        for x, values in enumerate(report.coverages(results, task).values()):
            if len(values):
                show_values(right, x, values, COLOURS["flexplore"])
        right.set(xlim=(-0.6, len(report.EXPLORATION) - 0.4), title="coverage, %", ylim=(0, None))
        right.set_xticks(range(len(report.EXPLORATION)), ticks, fontsize=7.5)
    legend(figure, axes[np.argmax([task in report.PLANE for task in tasks]), 0])
    return figure


def embedding(runs, count=300):
    """t-SNE of `count` evenly spaced states of each run, together -> points and rewards per run."""
    from sklearn.manifold import TSNE

    chosen = [np.linspace(0, len(run["s"]) - 1, count).astype(int) for run in runs]
    pooled = np.concatenate([run["s"][i] for run, i in zip(runs, chosen)])
    pooled = (pooled - pooled.mean(axis=0)) / (pooled.std(axis=0) + 1e-6)
    points = TSNE(init="pca", random_state=0).fit_transform(pooled)
    return np.split(points, len(runs)), [run["r"][i] for run, i in zip(runs, chosen)]


def horizon(results):
    tasks = results.tasks("horizon")
    figure, axes = plt.subplots(1, 3, figsize=(11.6, 3.4), layout="constrained")
    quantities = [
        lambda task, H, runs: TASKS[task].score(all_starts(task, runs)[0]),
        lambda task, H, runs: np.array([report.consistency_error(run, H) for run in runs]),
        lambda task, H, runs: np.array([run["plan_ms"] for run in runs]),
    ]
    titles = "final score (0 = random play, 1 = limit)", "model error at depth H", "milliseconds per plan"
    for ax, title, quantity in zip(axes, titles, quantities):
        for task, colour in zip(tasks, plt.get_cmap("tab10").colors):
            runs = {H: results.runs("horizon", task, f"H_{H}") for H in HORIZONS}
            values = {H: report.known(quantity(task, H, r)) for H, r in runs.items() if r}
            values = {H: v for H, v in values.items() if len(v)}
            x, means = list(values), [v.mean() for v in values.values()]
            low, high = np.reshape([interval(v) for v in values.values()], (-1, 2)).T
            ax.plot(x, means, "o-", color=colour, markersize=4, label=TASKS[task].title)
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.set(title=title, xlabel="H")
        ax.set_xticks(HORIZONS)
    axes[1].set_yscale("log")
    legend(figure, axes[0])
    return figure


def draw(results, folder):
    """Every figure that has results, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = {"curves_table": "steps", "minutes_table": "minutes"} if results.tasks("table") else {}
    figures = {name: lambda over=over: curves(results, over) for name, over in shown.items()}
    ablations = (e for e in report.ABLATIONS if e not in report.TABLES_ONLY and results.tasks(e))
    figures |= {e: lambda e=e: globals()[e](results) for e in ablations}
    with plt.rc_context(STYLE):
        for name, make in figures.items():
            figure = make()
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})
            plt.close(figure)
