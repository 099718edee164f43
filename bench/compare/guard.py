"""Whether a change needs more CPU than the revision before it: both take turns for moments, so that
what else runs slows down both."""

import statistics

import rows

# It may not need more than this, as a multiple of what it was.
MOST = 1.15
# As near as this more rounds decide.
NEAR = 0.07

# Rounds, of two turns each for both.
FIRST, STEP, LAST = 7, 4, 31


class Guard:
    """Judges one measurement."""

    def __init__(self, measurement, ours, before):
        self.measurement, self.ours, self.before = measurement, ours, before
        self.ratios, self.said = [], ""

    def run(self):
        """Takes as many rounds as it needs. Whether the change may pass."""
        while len(self.ratios) < FIRST or (self.is_near() and len(self.ratios) < LAST):
            for _ in range(STEP if self.ratios else FIRST):
                self.ratios.append(self.round())
        return self.judge()

    def round(self):
        """What ours needs of what it was: by the least of two turns each, in an order that favours
        neither. What disturbs a turn only adds to it."""
        turns = {self.ours: [], self.before: []}
        first, second = self.ours, self.before
        if len(self.ratios) % 2:
            first, second = second, first
        for peer in (first, second, second, first):
            turns[peer].append(self.turn(peer))
        return min(turns[self.ours]) / min(turns[self.before])

    def turn(self, peer):
        """CPU of one peer's turn."""
        figures = rows.Figures()
        self.measurement(peer, figures)
        cpu, = (value for row, value in figures.items() if ": CPU " in row)
        return cpu

    def is_near(self):
        """Whether the rounds so far leave it open."""
        return abs(statistics.median(self.ratios) - MOST) < NEAR

    def judge(self):
        """The verdict on all rounds."""
        ratio = statistics.median(self.ratios)
        is_right = ratio <= MOST
        verdict = "passes" if is_right else f"FAILS, the most is {MOST}"
        self.said = (f"{self.measurement.name}: {ratio:.3f} x the CPU of before "
                     f"({len(self.ratios)} rounds, {min(self.ratios):.2f} to "
                     f"{max(self.ratios):.2f}): {verdict}")
        return is_right
