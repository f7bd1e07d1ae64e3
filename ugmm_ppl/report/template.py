"""The page around the report."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""


STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --page: #f6f7f9; --card: #ffffff; --line: #dfe3e8;
  --good: #1a7f45; --note: #8a6100; --problem: #c0322b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --page: #12161c; --card: #1b2129;
  --line: #303844; --good: #58c987; --note: #e0b04c; --problem: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.25rem clamp(.8rem, 3vw, 2rem) 3rem; }
h1 { font-size: 1.6rem; margin: .4rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
.facts { color: var(--soft); margin: .2rem 0 .8rem; }
.banner { border-left: .35rem solid; padding: .6rem .9rem; border-radius: .3rem; background: var(--card);
  font-weight: 600; }
.banner.healthy { border-color: var(--good); } .banner.problems { border-color: var(--problem); }
section { margin-top: 1.6rem; }
.metrics { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0 0; }
.metrics div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .8rem; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
.verdicts { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
th, td { text-align: left; padding: .4rem .7rem; vertical-align: top; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; border-top: 0; }
td:first-child { white-space: nowrap; font-weight: 600; }
.good td:first-child { color: var(--good); } .note td:first-child { color: var(--note); }
.problem td:first-child { color: var(--problem); } .not-computed td { color: var(--soft); }
.mark { display: inline-block; width: 1.3em; height: 1.3em; line-height: 1.3em; text-align: center; border-radius: 50%;
  border: 1px solid currentColor; font-size: .75rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem;
  min-width: 0; }
figure.wide { grid-column: 1 / -1; } figure.wide svg { max-width: 46rem; }
svg { display: block; width: 100%; height: auto; fill: currentColor; }
figcaption { color: var(--soft); font-size: .8rem; margin-top: .4rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.data td, .data th { white-space: nowrap; font-variant-numeric: tabular-nums; }
@media (min-width: 46rem) { .verdicts td:nth-child(n+2):nth-child(-n+4) { min-width: 11rem; } }
@media (max-width: 46rem) {
  .verdicts thead { display: none; }
  .verdicts, .verdicts tbody, .verdicts tr, .verdicts td { display: block; width: 100%; }
  .verdicts tr { padding: .5rem .2rem; border-top: 1px solid var(--line); }
  .verdicts td { border: 0; padding: .1rem .7rem; } .verdicts td:empty { display: none; }
  .verdicts td:nth-child(2) { font-weight: 600; }
  .verdicts td:nth-child(n+3)::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print { body { background: none; } figure, .verdicts tr { break-inside: avoid; } }
"""
