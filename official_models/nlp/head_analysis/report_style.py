"""How report.html looks: its style sheet, and the colours of values."""

from __future__ import annotations

# Of the classes of patterns, in their order; told apart by the colour-blind
# too (Okabe and Ito 2008).
CLASS_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#9a9a9a")
# Colours between which a value's is mixed, in equal steps.
RISES = ((255, 255, 255), (158, 202, 225), (8, 69, 148))
FALLS = ((179, 88, 6), (253, 184, 99), (250, 250, 250), (146, 197, 222),
         (33, 102, 172))  # fmt: skip
STYLE = """
:root { color-scheme: light; --line: #d9dde3; --soft: #5b6470; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: #1d232b;
  font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1500px; margin: 0 auto; padding: 24px; }
header h1 { margin: 0 0 4px; font-size: 28px; }
header p, section > p { margin: 0 0 12px; color: var(--soft);
  max-width: 90ch; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: 18px 20px; margin: 18px 0; }
h2 { margin: 0 0 6px; font-size: 20px; }
h3 { margin: 18px 0 4px; font-size: 16px; }
.wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 3px; }
th { font-weight: 600; font-size: 12px; color: var(--soft);
  white-space: nowrap; text-align: center; padding: 2px 6px; }
th[scope=row] { text-align: left; }
td { text-align: center; padding: 2px; vertical-align: top; }
.heat td { min-width: 62px; height: 38px; vertical-align: middle;
  border-radius: 4px; font-variant-numeric: tabular-nums; font-size: 14px; }
.heat td small { display: block; font-size: 11px; opacity: .85; }
.narrow td { min-width: 110px; }
.plain { border-collapse: collapse; }
.plain td, .plain th { border-bottom: 1px solid var(--line);
  padding: 6px 14px 6px 0; text-align: left; font-size: 14px;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 0; padding: 4px; border-radius: 6px;
  background: var(--class, #c8ccd2); }
figure img { display: block; width: 92px; height: 92px; margin: 0 auto;
  image-rendering: pixelated; background: #fff; }
figcaption { background: #fff; margin-top: 4px; padding: 2px; width: 92px;
  min-height: 48px; font-size: 11px; line-height: 1.3; border-radius: 3px; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; list-style: none;
  margin: 0 0 10px; padding: 0; font-size: 14px; }
.legend span { display: inline-block; width: 14px; height: 14px;
  border-radius: 3px; margin-right: 6px; vertical-align: -2px; }
"""


def cell_style(
    value: float, limits: tuple[float, float], colours: tuple
) -> str:
    """Background and colour of a cell, as CSS.

    Args:
        value: Beyond the limits it has the colour of the nearer one.
        limits: The values of the first and the last colour.
        colours: Red, green and blue in 0 to 255, two or more.
    """
    first, last = limits
    share = (value - first) / (last - first)
    place = min(max(share, 0.0), 1.0) * (len(colours) - 1)
    left = min(int(place), len(colours) - 2)
    part = place - left
    mixed = [
        round(a + part * (b - a))
        for a, b in zip(colours[left], colours[left + 1])
    ]
    # Brightness as the eye has it, so that the text can be read (WCAG).
    linear = [(x / 255) ** 2.2 for x in mixed]
    bright = sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear))
    ink = "#1d232b" if bright > 0.2 else "#ffffff"
    return "background:#{:02x}{:02x}{:02x};color:{}".format(*mixed, ink)
