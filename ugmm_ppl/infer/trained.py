"""Methods that minimise a loss over the parameters of a guide, from several starts side by side."""

from __future__ import annotations

import functools
from typing import Any

from ugmm_ppl import checks
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.backends.trainer import Trainer
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.infer.elbo import negative_elbo
from ugmm_ppl.infer.loop import Plan, Run, train
from ugmm_ppl.infer.method import Method, Reached, Task
from ugmm_ppl.infer.schedule import Batches, kl_weights, learning_rates
from ugmm_ppl.typing import PerStep, SiteValues


class Trained(Method):
    """What they share: the plan of the steps, and the loop."""

    def guide(self, task: Task) -> Guide:
        """The guide whose parameters are trained."""
        return task.guide

    def trainer(self, task: Task, guide: Guide, seeds: list[int]) -> Trainer:
        """What takes the steps: by default the backend's, down the gradient of `ugmm_ppl.infer.elbo`."""
        settings, backend = task.settings, task.backend
        model = functools.partial(task.model, backend)
        objective = functools.partial(negative_elbo, backend, model, guide, data_size=len(task.data[0]))
        return backend.trainer(
            objective, guide.noise_shapes(), task.data, seeds, optimizer=settings.optimizer,
            clip_norm=settings.clip_norm, num_particles=settings.num_particles, split_batch=settings.split_batch,
        )  # fmt: skip

    def reached(self, task: Task, run: Run) -> list[SiteValues]:
        """What a fit keeps of the parameters of a run."""
        del task
        return run.params

    def kl_weights(self, task: Task) -> PerStep:
        """Factor of the KL term at every step."""
        settings = task.settings
        return kl_weights(settings.num_steps, settings.temperature, settings.kl_warmup)

    def run(self, task: Task) -> Reached:
        """Take all steps."""
        settings, guide = task.settings, self.guide(task)
        seeds = [task.seed + restart for restart in range(settings.num_restarts)]
        rows, size = len(task.data[0]), settings.batch_size
        mixed = settings.parts > 1 or task.model.has_local_variables
        orders = [Batches(rows, size, seed, mixed=mixed) for seed in seeds]
        plan = Plan(
            learning_rates(settings.num_steps, settings.learning_rate, settings.schedule),
            self.kl_weights(task),
            lambda restart, step: orders[restart](step),
            settings.patience,
        )
        label = self.name if len(seeds) == 1 else f"{self.name}, {len(seeds)} restarts"
        with Progress(settings.num_steps, label, show=task.progress) as bar:
            try:
                run = train(
                    self.trainer(task, guide, seeds), [guide.initial(start) for start in task.starts], plan,
                    callbacks=settings.callbacks, held_out=task.scorer(guide), checkpoint=task.checkpoint, progress=bar,
                )  # fmt: skip
            except checks.CheckpointError as error:
                error.reached = self._kept(task, guide, error.reached)
                raise
        return self._kept(task, guide, run)

    def _kept(self, task: Task, guide: Guide, run: Run) -> Reached:
        failed: Any = None
        if run.failed:
            _, step, gradient = run.failed
            failed = (step, guide.culprits(gradient))
        return Reached(state=self.reached(task, run), interrupted=run.interrupted, run=run, failed=failed)
