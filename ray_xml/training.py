"""The epoch loop, as a generator: whoever drives it decides what to do with each epoch's report.

    refresh → [validate, checkpoint] → cycle_epochs epochs → refresh → …  → last refresh

A refresh serves the validation of the epochs behind it and the shortlists of those ahead, so
proxies are never older than the encoder that they are used with. Every worker runs this same
loop; see ``exchange`` for what they share.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_xml import partition
from ray_xml.batches import BatchMaker
from ray_xml.blend import DEFAULT
from ray_xml.checkpoint import epochs_in
from ray_xml.classifier import Classifier
from ray_xml.disk import writing
from ray_xml.encoder import Encoder
from ray_xml.epoch_report import Clock, Report, peak_memory, report
from ray_xml.epoch_steps import Steps
from ray_xml.errors import DiskError
from ray_xml.exchange import Exchange
from ray_xml.heap import give_back
from ray_xml.lexical_file import shared_lexical
from ray_xml.model_share import new_share
from ray_xml.ranges import Ranges
from ray_xml.refresh import Refresher, Validation
from ray_xml.run_cache import kept_lexical, kept_table
from ray_xml.run_config import RunConfig
from ray_xml.run_data import fitted_documents, metric_sums, split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.run_records import progress_event
from ray_xml.run_state import RunState, load_state, save_state
from ray_xml.shortlists import Shortlists
from ray_xml.sparse import Subset
from ray_xml.store import DataSet
from ray_xml.truth import Truth

Event = Callable[[dict[str, Any]], None]


class Training:
    """One worker's share of a run.

    Args:
        folder: the run folder, on a path that all workers share.
        ranges: the label ranges, on behalf of all workers.
        device: where this worker computes.
        event: told what is going on, often; only rank 0's is of interest.
        pause: asked after each epoch whether to stop there; rank 0's answer counts.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DataSet,
        folder: Path,
        ranges: Ranges,
        exchange: Exchange,
        *,
        device: str = "cpu",
        event: Event = lambda _: None,
        pause: Callable[[], bool] = lambda: False,
    ) -> None:
        config = config.resolved(data)
        self.config, self.data, self.folder = config, data, folder
        self.ranges, self.exchange, self.event = ranges, exchange, event
        self.pause = pause
        self.device = torch.device(device)
        self.clock = Clock()
        self.clock.start("setup")
        train, (_, held) = data.split("train"), split_rows(data, config)
        fitted = fitted_documents(data, config)
        self.features, self.labels = fitted.features, fitted.labels
        self.held_features = Subset(train.features, held)
        pairs = train.filtered
        held_pairs = None if pairs is None else Subset(pairs, held)
        self.held_truth = Truth(Subset(train.labels, held), held_pairs)
        self.label_counts = self.labels.column_counts()
        self.sums = metric_sums(data, config.dataset)
        self.state = RunState(epoch=0)
        self.encoder, self.classifier = self._build()
        self.lists = config.classifier.uses_shortlists(data.meta.num_labels)
        self.fitted = -1  # the cycle that the proxies were fitted for
        # The sparse channel: needed here for validation, and by the run's predictors.
        neighbors_file = RunFolder(folder).neighbors_file
        kept = kept_lexical(config, data)
        with writing(neighbors_file):
            self.lexical = shared_lexical(
                neighbors_file,
                config.neighbors,
                self.features,
                self.labels,
                exchange,
                kept,
                data.meta.num_words,
            )
        give_back()
        self.steps = Steps(self.encoder, self.classifier, exchange, fitted.rows)
        self.batches = BatchMaker(
            self.features,
            self.labels,
            self.classifier.label_range,
            exchange.size,
            config.classifier.negatives,
            self.device,
            config.classifier.drawn,
            config.classifier.candidates,
            config.training.seed,
            fitted.left_out,
        )
        self.refresher = Refresher(
            self.encoder,
            self.classifier,
            ranges,
            exchange,
            config.proxy,
            config.shortlist,
            self.label_counts,
            seed=config.training.seed,
            progress=self._progress,
        )

    def _build(self) -> tuple[Encoder, Classifier]:
        """As new, or as the newest checkpoint has them."""
        self._progress("token table", 0, 1)
        checkpoints = self.folder / "checkpoints"
        resume = bool(epochs_in(checkpoints))
        encoder, classifier = new_share(
            self.config,
            self.features,
            self.label_counts,
            self.exchange,
            self.device,
            empty=resume,
            kept=kept_table(self.config, self.data, self.device),
        )
        if resume:
            self.state = load_state(checkpoints, encoder, classifier, self.data)
        return encoder, classifier

    def epochs(self) -> Iterator[Report]:
        """Trains to the last epoch, or a pause, yielding a report after each epoch that is safely
        stored.

        Raises:
            DiskError: the run folder takes no more; what is stored is whole.
            TrainingError: numbers are not finite; nothing of that is stored.
        """
        try:
            yield from self._epochs()
        except DiskError as error:
            done = max(epochs_in(self.folder / "checkpoints"), default=0)
            kept = f"the checkpoint of epoch {done} is whole" if done else "no epoch was stored yet"
            raise DiskError(f"{error}; {kept}") from error

    def _epochs(self) -> Iterator[Report]:
        settings = self.config.training
        while True:
            epoch = self.state.epoch
            begins_cycle = epoch % settings.cycle_epochs == 0
            last = epoch == settings.total
            # Before the first epoch there is nothing to validate, so only shortlists would call
            # for a refresh.
            fitted = last or (begins_cycle and (epoch > 0 or self.lists))
            if fitted:
                self._refresh()
            if epoch > 0 and not self.state.stored:
                yield self._store(with_proxies=fitted)
                asked = self.exchange.rank == 0 and self.pause()
                if not last and self.exchange.any(asked, self.device):
                    return
            if last:
                if self.exchange.rank == 0:
                    shutil.rmtree(self.folder / "embeddings", ignore_errors=True)
                return
            self._train_epoch(epoch)
            self.state.epoch, self.state.stored = epoch + 1, False

    # ---- refresh -----------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Refits proxies and validates the epochs behind; shortlists may be searched for then."""
        self._refit(self.state.epoch)
        if self.state.epoch > 0 and not self.state.stored:
            self._validate()

    def _refit(self, cycle: int) -> None:
        """Proxies, and classifier rows where they are asked for, as they are now."""
        self.clock.start("proxies")
        embeddings = self.folder / "embeddings"
        with writing(embeddings):
            self.state.proxy_loss = self.refresher.fit_proxies(cycle, self.features, embeddings)
            self.clock.start("validate")
            if cycle > 0 or "classifier" in self.config.shortlist.sources:
                self.refresher.send_classifier()
        self.state.indexes, self.fitted = self.refresher.indexes, cycle

    def _validate(self) -> None:
        settings = self.config.training
        if self.held_features.num_rows == 0:
            self.state.validation = Validation(DEFAULT, {}, float("nan"), float("nan"))
            self.state.best_epoch = self.state.epoch
            return
        found = self.refresher.validate(
            self.held_features, self.held_truth, self.lexical, self.sums
        )
        self.state.validation = found
        if found.results[settings.metric] > self.state.best_value:
            self.state.best_value = found.results[settings.metric]
            self.state.best_epoch = self.state.epoch

    def _listed(self, epoch: int, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of ``order`` with their shortlists: from the cycle's file, or found now."""
        settings = self.config.training
        cycle = epoch - epoch % settings.cycle_epochs
        first = partition.epoch_order(self.features.num_rows, seed=settings.seed, epoch=cycle)
        path = self.folder / "shortlists" / f"cycle-{cycle:04d}.i32"
        lists = Shortlists(path, first, self.config.shortlist)
        if epoch == cycle or self._lost(path):
            if self.fitted != cycle:  # somebody deleted the file
                self._refit(cycle)
            batches = lists.search(
                settings.batch, self.ranges, self.exchange, self.device, self._waiting
            )
            with writing(path):
                if epoch == cycle:
                    yield from batches
                    return
                deque(batches, maxlen=0)
        yield from lists.read(order, settings.batch)

    def _lost(self, path: Path) -> bool:
        """Whether any worker misses the file: a shared file system may tell them differently."""
        return self.exchange.any(not path.exists(), self.device)

    def _waiting(self, begins: bool) -> None:
        self.clock.start("shortlist" if begins else "classifier")

    # ---- one epoch ---------------------------------------------------------------------------

    def _train_epoch(self, epoch: int) -> None:
        self.clock.start("classifier")
        settings = self.config.training
        order = partition.epoch_order(self.features.num_rows, seed=settings.seed, epoch=epoch)
        size = settings.batch
        batches: Iterable[tuple[np.ndarray, np.ndarray | None]]
        if self.lists:
            batches = self._listed(epoch, order)
        else:
            batches = ((order[at : at + size], None) for at in range(0, len(order), size))
        self.state.rate = settings.rate_at(epoch)
        self.state.trained = self.steps.train(
            self.batches.epoch(batches, epoch),
            epoch,
            -(-len(order) // size),
            settings.rate_at,
            lambda *told: self._progress("classifier", told[0], len(order), *told[1:]),
        )

    # ---- what is kept and told ---------------------------------------------------------------

    def _store(self, *, with_proxies: bool) -> Report:
        """Stores the epoch, the report of it included, and reports it."""
        self.clock.start("checkpoint")
        self._progress("checkpoint", 0, 1)
        made = self._report(self.clock.so_far())  # without what storing takes
        if self.exchange.rank == 0:
            RunFolder(self.folder).save_losses(self.state.epoch, made.step_losses)
        save_state(
            self.folder / "checkpoints",
            self.state,
            self.encoder,
            self.classifier,
            self.ranges if with_proxies else None,
            self.exchange,
            self.data,
            self.config,
            made.line,
        )
        self.clock.start(None)
        told = self._report(self.clock.take())
        self.state.stored, self.state.validation = True, None
        return told

    def _report(self, seconds: dict[str, float]) -> Report:
        memory = peak_memory(self.exchange, self.ranges, self.device)
        return report(self.state, self.config.training.metric, seconds, memory)

    def _progress(
        self,
        phase: str,
        done: int,
        total: int,
        began: float | None = None,
        loss: float | None = None,
    ) -> None:
        if self.exchange.rank == 0:
            epochs = (self.state.epoch, self.config.training.total)
            self.event(progress_event(phase, epochs, (done, total), began, loss))
