"""The command line: `ugmm-ppl fit MODEL_FILE`, `ugmm-ppl predict RUN_DIR data.csv`, `ugmm-ppl report RUN_DIR`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import ugmm_ppl as up
from ugmm_ppl.cli.run import run_fit, run_predict, run_report

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(up.__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Bayesian networks of univariate-Gaussian-mixture neurons, on Pyro or NumPyro."""


@app.command()
def fit(
    model_file: Annotated[Path, typer.Argument(help="Python file with `model`, `data()` and `settings`; see models/.")],
    backend: Annotated[str | None, typer.Option(help="numpyro or pyro.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, gpu, cuda, cuda:0 or the number of a GPU.")] = None,
    method: Annotated[str | None, typer.Option(help="svi, map, laplace, nuts, sghmc or em.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; draws per chain for samplers.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default runs/NAME.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no report.")] = False,
) -> None:
    """Train a model file; leaves posterior.nc, metrics.json, fit.npz and plots."""
    options = {"backend": backend, "device": device, "method": method, "seed": seed}
    overrides = {name: value for name, value in options.items() if value is not None}
    folder = out or Path("runs") / model_file.stem
    with _user_errors():
        metrics = run_fit(
            model_file,
            overrides,
            steps,
            folder,
            progress=not quiet,
            say=lambda line: typer.echo(line, err=True),
        )
        if not quiet:
            split = "test" if "test" in metrics else "train"
            for name, value in metrics[split].items():
                typer.echo(f"{split} {name.replace('_', ' ')}: {value:.4f}")
            typer.echo(f"results: {folder} (posterior.nc, metrics.json, fit.npz, plots)")


@app.command()
def predict(
    run_dir: Annotated[Path, typer.Argument(help="Folder that `fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="CSV file with the feature columns.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write; default the terminal.")] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu, cuda, cuda:0 or the number of a GPU.")] = "cpu",
) -> None:
    """Predict the rows of a CSV file."""
    with _user_errors():
        run_predict(run_dir, data, out, device)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder that `fit` wrote.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default RUN_DIR/report.html.")] = None,
) -> None:
    """Write a report of a fit: verdicts and pictures in one HTML file."""
    with _user_errors():
        target = out or run_dir / "report.html"
        diagnosis = run_report(run_dir, target)
        typer.echo("healthy" if diagnosis.healthy else f"problems: {', '.join(diagnosis.problems)}")
        typer.echo(f"report: {target}")


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Turn errors of the user into one line and exit code 2; a failed training has exit code 1."""
    try:
        yield
    except up.NonFiniteError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except (ValueError, TypeError, OSError, up.MissingExtraError) as error:
        typer.echo("error: " + " ".join(str(error).split()), err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from error
