#!/usr/bin/env python3
"""What scripts/bench-hot.sh has sampled, made readable.
  hot.py table FACTS                  a system's seconds
  hot.py report [--out DIR] FACTS...  means and verdicts of all systems; hot.csv and hot.svg in DIR; exits 1 when a
                                      number is missed
SYSTEM.facts is JSON, SYSTEM.samples beside it has a line a second; both are described where the script writes them.
SYSTEM.cN_bw.1.log is fio's: the end of a second in ms, KiB/s in it, and more.
MB are 10^6 bytes."""
import json
import sys

# The seconds of reading in which the replicas have to be there, and from which on the rest is judged.
THERE, REST = 15, 20
SHARE_THERE, SHARE_REST, SHARE_WRITER = 0.90, 0.95, 0.80
# Goal and space are back so long after the time that a chunk has to be cold.
BACK_S = 10
# Readers that got less than this share of what they read over their links were answered by something else.
SHARE_REAL = 0.97
# Of what readers are sent, so much has to be what they wanted: bytes that are sent twice fill links as well.
SHARE_WANTED = 0.90


class Run:
    """One system: seconds counted from the first read, those before it below zero."""

    def __init__(self, path):
        with open(path) as file:
            self.__dict__.update(json.load(file))
        self.seconds_read = self.__dict__.pop("seconds")
        samples = []
        with open(path.removesuffix(".facts") + ".samples") as file:
            for line in file:
                words = line.split()
                ports = dict(word.split("=") for word in words[4:])
                ports = {name: tuple(int(n) for n in both.split("/")) for name, both in ports.items()}
                samples.append(((int(words[0]) - self.began) / 1000, int(words[1]), int(words[2]), int(words[3]), ports))
        self.samples = samples
        self.seconds = range(-self.calm, int(samples[-1][0]))
        # The stop is when the last reader had ended, which waits for what it has in flight.
        self.reading = range(0, self.seconds_read)
        self.names = [f"s{i + 1}" for i in range(self.servers)]
        readers = [f"c{i + 1}" for i in range(self.clients)]
        self.sent = {name: self.rates(lambda s, name=name: s[4][name][0]) for name in self.names}
        self.total = self.rates(lambda s: sum(s[4][name][1] for name in readers))
        self.writer = self.rates(lambda s: s[4]["writer"][0])
        busy, ticks = self.rates(lambda s: s[2]), self.rates(lambda s: s[3])
        self.cpu = {k: 100 * busy[k] / ticks[k] if ticks[k] else 0 for k in self.seconds}
        self.replicas = {k: [s[1] for s in samples if s[0] <= k + 1][-1] for k in self.seconds}
        self.wanted = {k: 0 for k in self.seconds}
        for name in readers:
            got = self.programs(f"{path.removesuffix('.facts')}.{name}_bw.1.log")
            for k in self.seconds:
                self.wanted[k] += at(got, k + 1) - at(got, k)
        self.links = min(self.servers, self.clients)

    def programs(self, path):
        """What one reader's program has read until when; its log ends with its last whole second."""
        points = [(-self.calm - 1, 0)]
        with open(path) as file:
            for line in file:
                ms, kib = line.split(",")[:2]
                second = (int(ms) - self.began) / 1000
                if len(points) == 1:
                    points.append((second - 1, 0))
                points.append((second, points[-1][1] + int(kib) * 1024))
        return points

    def rates(self, value):
        points = [(s[0], value(s)) for s in self.samples]
        return {k: at(points, k + 1) - at(points, k) for k in self.seconds}

    def received(self):
        last = self.samples[-1][4]
        first = [s for s in self.samples if s[0] <= 0][-1][4]
        return sum(last[f"c{i + 1}"][1] - first[f"c{i + 1}"][1] for i in range(self.clients))

    def copying(self):
        """From the first read until the last replica has come; all of the reading when none came."""
        raised = [k for k in self.reading if k > 0 and self.replicas[k] > self.replicas[k - 1]]
        return range(0, raised[-1] + 1) if raised else self.reading


def at(points, when):
    """A counter at a moment, between two points in proportion."""
    for (t, v), (u, w) in zip(points, points[1:]):
        if u >= when:
            return v + (w - v) * (when - t) / (u - t)
    return points[-1][1]


def mean(series, seconds):
    return sum(series[k] for k in seconds) / len(seconds)


def table(run):
    print(f"{'second':>6} {'readers':>8} {'wanted':>7} {'replicas':>8} {'writer':>7} {'CPU %':>6}  MB/s of " + " ".join(f"{n:>5}" for n in run.names))
    for k in run.seconds:
        print(f"{k:>6} {run.total[k] / 1e6:>8.1f} {run.wanted[k] / 1e6:>7.1f} {run.replicas[k]:>8} {run.writer[k] / 1e6:>7.1f} {run.cpu[k]:>6.0f}          "
              + " ".join(f"{run.sent[n][k] / 1e6:>5.1f}" for n in run.names))


def verdicts(run):
    """Lines to print, and how many numbers were missed."""
    lines, missed = [], 0

    def line(what, ok=None):
        nonlocal missed
        missed += ok is False
        lines.append(f"  {what}" + {None: "", True: ": ok", False: ": MISSED"}[ok])

    judged = run.system == "dfs"
    for seconds, share in ((range(THERE, REST), SHARE_THERE), (range(REST, run.reading.stop), SHARE_REST)):
        got = mean(run.total, seconds)
        line(f"seconds {seconds.start} to {seconds.stop}: {got / 1e6:.1f} MB/s, {got / run.link:.2f} links with up to "
             f"{max(run.replicas[k] for k in seconds)} replicas; {share * run.links:.2f} links are asked",
             got >= share * run.links * run.link if judged else None)
    rest = range(REST, run.reading.stop)
    share = mean(run.wanted, rest) / mean(run.total, rest)
    line(f"of that {mean(run.wanted, rest) / 1e6:.1f} MB/s were wanted, {100 * share:.0f} %; {100 * SHARE_WANTED:.0f} % are asked",
         share >= SHARE_WANTED if judged else None)
    line(f"CPUs of the machine {mean(run.cpu, run.reading):.0f} % busy while there were readers")
    calm = mean(run.writer, range(-run.calm, 0))
    copying = run.copying()
    kept = mean(run.writer, copying) / calm
    line(f"writer: {calm / 1e6:.1f} MB/s in calm, {100 * kept:.0f} % of it in the seconds 0 to {copying.stop}, "
         f"{100 * mean(run.writer, run.reading) / calm:.0f} % in all", kept >= SHARE_WRITER if judged else None)
    for what, when in (("goal", run.goal), ("space", run.space)):
        after = None if when is None else (when - run.stopped) / 1000
        line(f"{what} back " + ("never" if after is None else f"{after:.1f} s") + f" after the last read; {run.lower_after + BACK_S} s are asked",
             (after is not None and after <= run.lower_after + BACK_S) if judged else None)
    real = run.received() / run.read
    line(f"readers were sent {100 * real:.0f} % of the {run.read / 1e6:.0f} MB that they read", real >= SHARE_REAL)
    return lines, missed


def csv(runs):
    most = max((run.names for run in runs), key=len)
    yield ",".join(["system", "second", "readers_mb_s", "wanted_mb_s", "replicas", "writer_mb_s", "cpu_percent"] + [f"{n}_mb_s" for n in most])
    for run in runs:
        for k in run.seconds:
            yield ",".join([run.system, str(k), f"{run.total[k] / 1e6:.1f}", f"{run.wanted[k] / 1e6:.1f}", str(run.replicas[k]), f"{run.writer[k] / 1e6:.1f}",
                            f"{run.cpu[k]:.0f}"] + [f"{run.sent[n][k] / 1e6:.1f}" for n in run.names])


# --- the plot ---

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 900, 210, 70, 70, 64, 46
READERS, WANTED, REPLICAS, WRITER, GRID, INK = "#1f5fa8", "#7fb2e5", "#d1602b", "#5a8f4e", "#dddddd", "#333333"
LEGEND = (("sent to readers", READERS), ("wanted by them", WANTED), ("a writer elsewhere", WRITER), ("replicas", REPLICAS))


def svg(runs):
    height = TOP + len(runs) * (PANEL + GAP) + 14
    first, last = min(r.seconds.start for r in runs), max(r.seconds.stop for r in runs)
    link = runs[0].link / 1e6
    top = max(runs[0].links + 0.6, *(max(r.total.values()) / r.link * 1.05 for r in runs)) * link
    most = max(max(r.replicas.values()) for r in runs) + 1

    def x(second):
        return LEFT + (second - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def text(at_x, at_y, words, anchor="middle", color=INK, extra=""):
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" fill="{color}" {extra}>{words}</text>'

    def path(points, color, extra=""):
        return f'<path d="M{" L".join(f"{a:.1f},{b:.1f}" for a, b in points)}" fill="none" stroke="{color}" stroke-width="2" {extra}/>'

    yield (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
           'font-family="sans-serif" font-size="12">')
    yield f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    yield text(LEFT, 22, f"One hot file: {runs[0].clients} readers, {runs[0].servers} servers, links of {link:.0f} MB/s", "start", INK, 'font-size="15" font-weight="bold"')
    for n, (words, color) in enumerate(LEGEND):
        yield f'<rect x="{LEFT + n * 150}" y="36" width="18" height="4" fill="{color}"/>'
        yield text(LEFT + n * 150 + 24, 42, words, "start")
    yield f'<rect x="{LEFT + 600}" y="31" width="18" height="13" fill="#f3f6fa"/>'
    yield text(LEFT + 624, 42, "while they read", "start")
    for n, run in enumerate(runs):
        base = TOP + n * (PANEL + GAP) + PANEL
        full = PANEL - 24

        def y(value):
            return base - value / top * full

        def count(value):
            return base - value / most * full

        yield f'<rect x="{x(0):.1f}" y="{base - full}" width="{x(run.reading.stop) - x(0):.1f}" height="{full}" fill="#f3f6fa"/>'
        yield text(LEFT, base - full - 6, run.system, "start", INK, 'font-weight="bold"')
        step = next(s for s in (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 10**9) if top / s <= 6)
        for value in range(0, int(top) + 1, step):
            yield f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}" stroke="{GRID}"/>'
            yield text(LEFT - 8, y(value) + 4, value, "end", READERS)
        for links in range(1, run.links + 1):
            yield f'<line x1="{LEFT}" y1="{y(links * link):.1f}" x2="{WIDTH - RIGHT}" y2="{y(links * link):.1f}" stroke="#999999" stroke-dasharray="2 4"/>'
            yield text(WIDTH - RIGHT - 4, y(links * link) - 3, f"{links} link" + "s" * (links > 1), "end", "#777777", 'font-size="10"')
        for value in range(0, most + 1, 1 if most <= 8 else 2 if most <= 16 else 10):
            yield text(WIDTH - RIGHT + 8, count(value) + 4, value, "start", REPLICAS)
        for second in range(first - first % 10, last + 1, 10):
            if second >= first:
                yield f'<line x1="{x(second):.1f}" y1="{base}" x2="{x(second):.1f}" y2="{base + 4}" stroke="{INK}"/>'
                yield text(x(second), base + 17, second)
        yield f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}" stroke="{INK}"/>'
        for at_x, words, color in ((18, "MB/s", READERS), (WIDTH - 18, "replicas", REPLICAS)):
            yield text(0, 0, words, "middle", color, f'transform="translate({at_x},{base - full / 2:.0f}) rotate(-90)"')
        # A second's rate stands in its middle; a count holds until the next.
        yield path([(x(k + 0.5), y(run.writer[k] / 1e6)) for k in run.seconds], WRITER, 'stroke-opacity="0.8"')
        yield path([(x(k + 0.5), y(run.wanted[k] / 1e6)) for k in run.seconds], WANTED)
        steps = [(x(k + side), count(run.replicas[k])) for k in run.seconds for side in (0, 1)]
        yield path(steps, REPLICAS)
        yield path([(x(k + 0.5), y(run.total[k] / 1e6)) for k in run.seconds], READERS)
    yield text((LEFT + WIDTH - RIGHT) / 2, height - 10, "seconds since the first read")
    yield "</svg>"


def report(out, runs):
    missed = 0
    for run in runs:
        lines, bad = verdicts(run)
        missed += bad
        print(f"\n{run.system}", *lines, sep="\n")
    if out:
        for name, lines in (("hot.csv", csv(runs)), ("hot.svg", svg(runs))):
            with open(f"{out}/{name}", "w") as file:
                file.writelines(line + "\n" for line in lines)
            print(f"{out}/{name}")
    rest = range(REST, runs[0].reading.stop)
    ends = [f"{run.system} {mean(run.total, rest) / run.link:.2f} (wanted {mean(run.wanted, rest) / run.link:.2f})" for run in runs]
    print(f"\nof {runs[0].links} links of {runs[0].link / 1e6:.1f} MB/s: {', '.join(ends)}; {missed} numbers missed")
    return 1 if missed else 0


def main(words):
    match words:
        case ["table", facts]:
            table(Run(facts))
            return 0
        case ["report", "--out", out, *facts] if facts:
            return report(out, [Run(path) for path in facts])
        case ["report", *facts] if facts:
            return report("", [Run(path) for path in facts])
        case _:
            print(__doc__, file=sys.stderr)
            return 2


sys.exit(main(sys.argv[1:]))
