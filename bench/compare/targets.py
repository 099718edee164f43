"""What the module is to reach, judged by the figures of one run."""

from rows import SIZES
from table import OURS, median, number, ratio

WAYS = ("up", "down", "both")

# The peer that is relay with WSForwardTLS native.
NATIVE = "native"

# Clients that come back at once, and tunnels that are held.
STORM = HELD = 20_000
# So many are held where the descriptors do not allow HELD.
FEWER_HELD = 10_000


class Judge:
    """Asks the rows of a run about one of its peers."""

    def __init__(self, results, name=OURS):
        self.results, self.name = results, name

    def ours(self, row):
        """Our figure in a row."""
        return median(self.results.get(row, {}).get(self.name, ()))

    def share(self, row, peer):
        """What ours is of a peer's figure."""
        by_peer = self.results.get(row, {})
        return ratio(by_peer.get(self.name, ()), by_peer.get(peer, ()))

    def worst(self, rows, names):
        """The greatest share over rows and peers, and whose it is; none unless all are there."""
        shares = [(self.share(row, peer), peer, row) for row in rows for peer in names]
        if any(share is None for share, _, _ in shares):
            return None, ""
        share, peer, row = max(shares)
        return share, f"{peer} in {row.partition(': ')[0]}"

    def target(self, row, must, aim):
        """One row: `must` and `aim` are (text, value, its bound, what to say of the value)."""
        result = {"row": row}
        for prefix, (text, value, bound, said) in (("", must), ("aim ", aim)):
            result[prefix.strip() or "must"] = text
            known = value is not None
            result[f"{prefix}measured"] = f"{number(value)}{said}" if known else "not measured"
            result[f"{prefix}value"] = value
            result[f"{prefix}reached"] = bound(value) if known else None
        return result

    def stock(self, row, peer, rows, most, aim):
        """The worst of the rows as a share of stock httpd's figure."""
        value, where = self.worst(rows, [peer])
        said = f" x {where}" if len(rows) > 1 else f" x {peer}"
        must = (f"{most} x {peer}", value, at_most(most), said)
        if isinstance(aim, (int, float)):
            return self.target(row, must, (f"{aim} x {peer}", value, at_most(aim), said))
        text, names, rows = aim
        value, where = self.worst(rows, names)
        return self.target(row, must, (text, value, below(1), f" x {where}"))

    def best(self, row, names, rows):
        """As little as the best of these peers in each row, and less."""
        value, where = self.worst(rows, names)
        said = f" x {where}"
        return self.target(row, ("at most the best peer's at every size", value, at_most(1), said),
                           ("below the best peer's at every size", value, below(1), said))

    def storm(self, scheme, most):
        """How soon all are open again, and how long a plain GET took meanwhile."""
        sizes = [int(row.split()[2].rstrip(":")) for row in self.results if row.startswith(f"storm {scheme} ")]
        size = max(sizes, default=STORM)
        row = f"storm {scheme} {size}"
        share = self.share(f"{row}: s until all are open", "nginx")
        micros = self.ours(f"{row}: GET p99 us")
        seconds = None if micros is None else micros / 1e6
        fewer = "" if size >= STORM else f" (the descriptors do not allow {STORM:,})"
        return self.target(f"storm, {scheme}, {size:,} tunnels, until all are open{fewer}",
                           (f"{most} x nginx", share, at_most(most), " x nginx"),
                           ("plain GET p99 under 1 s", seconds, below(1), " s"))

    def flat(self, row, what, most, aim):
        """How much more something is with very many tunnels than with 100."""
        name = "growth of {}: {:,} held / 100"
        held = HELD if self.ours(name.format(what, HELD)) is not None else FEWER_HELD
        if self.ours(name.format(what, held)) is None:
            held = HELD
        fewer = "" if held == HELD else f" (the descriptors do not allow {HELD:,})"
        return self.own(f"{row}, {held:,} held / 100{fewer}", name.format(what, held), most, aim, " x")

    def own(self, row, name, most, aim, unit="", aim_text=None):
        """A figure of ours alone."""
        value = self.ours(name)
        return self.target(row, (f"{most}{unit}", value, at_most(most), unit),
                           (aim_text or f"{aim}{unit}", value, at_most(aim), unit))


def at_most(bound):
    """Whether a value is as small as that, in the digits that a table shows."""
    return lambda value: round(value, 2) <= bound


def below(bound):
    """Whether a value is smaller."""
    return lambda value: value < bound


def targets(results, most_tunnels):
    """All of them. `most_tunnels` is how many were tried."""
    judge = Judge(results)

    def mean(echo, what="CPU s per million"):
        return [f"{echo}, mean of sizes: {what}"]

    held = judge.ours("held ws: tunnels")
    return [
        judge.target("tunnels held with 25/150 threads",
                     ("20,000", held, lambda value: value >= 20000, ""),
                     ("descriptors the only limit", held, lambda value: value >= most_tunnels,
                      f" of {most_tunnels:,} tried")),
        # A child more or less is no thread for each tunnel.
        judge.flat("threads", "threads", 1.5, 1.0),
        judge.own("plain GET p50, 9,000 held / none",
                  "growth of plain GET p50: 9,000 held / none", 1.2, 1.0, " x"),
        judge.own("idle memory a tunnel, ws (9,000)", "held ws 9000: KiB each", 3.5, 1.8, " KiB"),
        judge.own("idle memory a tunnel, wss client (9,000)", "held wss 9000: KiB each", 22, 16,
                  " KiB", "the SSL's own 14 KiB + 2"),
        judge.stock("echo CPU, ws, 64 tunnels, mean of sizes", "apache", mean("echo ws 64"), 0.40,
                    ("below nginx and HAProxy at every size", ("nginx", "haproxy"),
                     sizes("echo ws 64"))),
        judge.stock("echo CPU, ws, 1000 tunnels, mean of sizes", "apache-10000",
                    mean("echo ws 1000"), 0.35,
                    ("below nginx and HAProxy", ("nginx", "haproxy"), mean("echo ws 1000"))),
        judge.stock("echo CPU, wss, 64 tunnels, mean of sizes", "apache", mean("echo wss 64"),
                    0.50, ("below HAProxy at every size", ("haproxy",), sizes("echo wss 64"))),
        judge.stock("bulk CPU, ws, 64 KiB frames, worst way", "apache",
                    bulk("ws", WAYS, "64 KiB frames"), 0.60, 0.30),
        judge.stock("bulk CPU, ws, one 1 GiB frame, worst way", "apache",
                    bulk("ws", WAYS[:2], "one 1 GiB frame"), 0.60, 0.30),
        judge.stock("bulk CPU, wss, worst way", "apache", bulk("wss", WAYS, "64 KiB frames"),
                    0.60, ("below HAProxy", ("haproxy",), bulk("wss", WAYS, "64 KiB frames"))),
        judge.stock("p99, ws, 64 tunnels, mean of sizes", "apache", mean("echo ws 64", "p99 us"),
                    0.6, 0.4),
        *(judge.stock(f"handshake CPU, {scheme}", "apache", [f"handshake {scheme}: CPU us"],
                      1.05, 0.95) for scheme in ("ws", "wss")),
        *(judge.storm(scheme, most) for scheme, most in (("ws", 1.2), ("wss", 1.3))),
        judge.flat("CPU per message", "CPU per message", 1.2, 1.05),
        *native(Judge(results, NATIVE)),
    ]


def native(judge):
    """Those with the TLS sessions of tunnels outside of OpenSSL."""
    rows = bulk("wss", WAYS, "64 KiB frames")
    return [
        *(judge.own(f"native: idle memory a tunnel, wss client ({held:,})", f"held wss {held}: KiB each",
                    4, 2.5, " KiB") for held in (1000, 9000)),
        # Stock httpd needs its thousands of threads for the thousand.
        *(judge.best(f"native: echo CPU, wss, {tunnels} tunnels", (apache, "nginx", "haproxy", "caddy"),
                     sizes(f"echo wss {tunnels}"))
          for tunnels, apache in ((64, "apache"), (1000, "apache-10000"))),
        judge.stock("native: bulk CPU, wss, worst way", OURS, rows, 1.05, 1.0),
    ]


def sizes(echo):
    """The rows of the CPU of messages of each size."""
    return [f"{echo} x {size} B: CPU s per million" for size in SIZES]


def bulk(scheme, ways, frames):
    """The rows of the CPU of bytes in frames."""
    return [f"bulk {scheme} {way}, {frames}: CPU s per GiB" for way in ways]
