"""`Fit`: a fitted model; ArviZ, diagnosis, report, and a file."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ugmm_ppl.data.files import Target
from ugmm_ppl.fitting import storage
from ugmm_ppl.fitting.registry import fit_of
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.posterior.predictive import Predictive


@fit_of(BaseModel)
@dataclasses.dataclass(eq=False, kw_only=True, repr=False)
class Fit(Predictive):
    """A fitted model, made by `ugmm_ppl.fit` and `ugmm_ppl.load`; predictions are in `ugmm_ppl.posterior.predictive`.

    Attributes, draws and data are described in `ugmm_ppl.posterior.record`, `drawn` and `predictive`.
    """

    def to_arviz(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Everything in one ArviZ tree; see `ugmm_ppl.arviz.to_arviz` for the options."""
        from ugmm_ppl.arviz.tree import to_arviz

        return to_arviz(self, self.with_extras(x, self.taken(options)), y, **options)

    def export(self, path: str | os.PathLike[str], x: Any = None, y: Any = None, **options: Any) -> None:
        """Write that tree to a netCDF file or Zarr folder, block by block; see `ugmm_ppl.arviz.export`."""
        from ugmm_ppl.arviz.stream import export

        export(self, path, self.with_extras(x, self.taken(options)), y, **options)

    def diagnose(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Look for what is wrong with this fit; see `ugmm_ppl.diagnostics.diagnose` for the options."""
        from ugmm_ppl.diagnostics import diagnose

        return diagnose(self, self.with_extras(x, self.taken(options)), y, **options)

    def report(self, path: Target, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Write the report of this fit, one HTML file; see `ugmm_ppl.report.write_report` for the options."""
        from ugmm_ppl.report.page import write_report

        return write_report(self, path, self.with_extras(x, self.taken(options)), y, **options)

    def save(self, path: Target) -> None:
        """Write the fit to one `.npz` file: arrays and a JSON description, no pickle, no training data.

        Args:
            path: A file, which is replaced when the new one is complete; or an open binary file, which gets it in one
                go.

        Raises:
            TypeError: Neither a path nor an open binary file.
        """
        storage.save(self, path)

    def to(self, device: str | int) -> Fit:
        """This fit, predicting on another device from now on: "cpu", "gpu", "cuda", "cuda:1" or 1.

        Raises:
            ValueError: The device is not there; the message lists what is.
        """
        self.device = self.primitives.device_name(device)
        vars(self).pop("family", None)  # its constants are on the old device
        return self
