"""Reconstruct one object: source ── fit ──▶ field.npz ── surface ──▶ mesh ──▶ views, turntable, report, record."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conf.options import UserError
from inference.meshes.height import parse_height
from inference.meshes.read_mesh import normalised
from inference.meshes.write_mesh import write_mesh
from inference.reconstruction.baselines import baseline_scores, compared
from inference.reconstruction.config import Method, ReconstructConfig
from inference.reconstruction.fitted_field import FittedField, ShownGuess, load_field
from inference.reconstruction.guidance.guide import shows_pixels
from inference.reconstruction.monitor import Monitor
from inference.reconstruction.output_folder import (
    COMMAND,
    FIELD,
    FILM,
    LAYOUT,
    PREVIEW,
    RECORD,
    REPORT,
    Result,
    clear_results,
    discard_failed,
    is_fitted,
    read_json,
    record,
    replace_fit,
    start_folder,
    state_file,
    write_film,
    write_json,
)
from inference.reconstruction.progress import shown_progress
from inference.reconstruction.report_page import report_page
from inference.reconstruction.sjc.method import reconstruct_by_scores
from inference.reconstruction.sources import Opened, Source
from inference.reconstruction.textured_surface import DRAWN_SMOOTHING, resized, textured_surface
from inference.reconstruction.turntable import turntable
from inference.reconstruction.views.guesses import Guess, draw_guesses
from inference.reconstruction.views.method import reconstruct_from_views
from pipeline.output import require_own_folder
from pipeline.storage import write_atomically

# Options on which the field does not depend; the mesh is made anew where they change.
MESH_OPTIONS = ("smoothing", "faces", "texture", "texture_size", "format", "height", "turntable")
SJC_VIEWS = ("elevations", "count", "photograph_weight")  # the settings of `views` that method=sjc uses
LAYOUT_VERSION = 3  # of field.npz and reconstruction.json; a folder of another version is made anew

SHOWN_VIEWS, SHOWN_PX = 12, 96  # of a guess, in the report


def reconstruct_object(folder: Path, source: Source, config: ReconstructConfig) -> dict[str, Any]:
    """Reconstruct an object into a folder, unless it is there; return the contents of reconstruction.json.

    Raises:
        UserError: The folder holds files of others, no object is found, or nothing can be reconstructed.
    """
    require_own_folder(str(folder), LAYOUT)
    settings = deciding_settings(source, config)
    finished = read_json(folder / RECORD)
    is_complete = all((folder / name).exists() for name in (mesh_name(config), FILM, REPORT))
    if is_complete and {name: finished.get(name) for name in settings} == settings:
        return finished
    field = load_field(folder / FIELD) if is_fitted(folder, settings) else None
    opened = source.open(None if field is None else field.input_elevation)
    start_folder(folder)
    if field is None:
        field = fitted_field(folder, state_file(folder, settings), opened, config)
        replace_fit(folder, field, settings)
    result = finish(source.name, opened, field, config)
    write_outputs(folder, result, config)
    contents = record(result, settings)
    write_json(folder / RECORD, contents)
    return contents


def mesh_name(config: ReconstructConfig) -> str:
    """Return the name of the file of the mesh."""
    return f"mesh.{config.format.value}"


def deciding_settings(source: Source, config: ReconstructConfig) -> dict[str, Any]:
    """Return what decides the field and the mesh, for settings.json and reconstruction.json."""
    options = asdict(config)
    fit = {"version": LAYOUT_VERSION, **source.identity, "method": config.method, "seed": config.sampling.seed}
    fit |= {name: options[name] for name in source.options}
    if config.method is Method.sjc:
        fit |= {"sjc": options["sjc"], "views": {name: options["views"][name] for name in SJC_VIEWS}}
    else:
        fit["views"] = options["views"]
    mesh = {name: options[name] for name in MESH_OPTIONS}
    return {"command": COMMAND, "fit_settings": fit, "mesh_settings": mesh}


def fitted_field(folder: Path, state: Path, opened: Opened, config: ReconstructConfig) -> FittedField:
    """Fit a field; if that fails, leave in `folder` what was there and the state for the next run, or nothing."""
    try:
        with shown_progress(folder / PREVIEW) as monitor:
            return fit(opened, config, monitor, state)
    except torch.OutOfMemoryError as error:
        discard_failed(folder)
        smaller = "sjc.nodes=64" if config.method is Method.sjc else "views.nodes=[64,128] views.epochs=[12,4]"
        raise UserError(f"the device has too little memory for the fit; try {smaller} or device=cpu") from error
    except UserError:
        discard_failed(folder)
        raise


def fit(opened: Opened, config: ReconstructConfig, monitor: Monitor, state: Path) -> FittedField:
    """Fit a field with the method of the options; `state` is the file of drawn views or of an optimisation."""
    seed = config.sampling.seed
    if config.method is Method.sjc:
        sjc = config.sjc.resolved(shows_pixels(opened.guide))
        return reconstruct_by_scores(opened.guide, opened.photograph, sjc, config.views, seed, monitor, state)
    settings = config.views
    begin = time.monotonic()
    guesses = draw_guesses(opened.guide, opened.photograph, settings, seed, monitor, state)
    drawing = time.monotonic() - begin
    field = reconstruct_from_views(opened.guide, guesses[0], settings, seed, monitor)
    shown = tuple(shown_guess(guess) for guess in guesses)
    return replace(field, seconds={"drawing views": drawing, **field.seconds}, guesses=shown)


def shown_guess(guess: Guess) -> ShownGuess:
    """Return some of a guess's drawn views, small, for the report."""
    chosen = np.linspace(1, len(guess.views.pictures) - 1, SHOWN_VIEWS).round().astype(int)
    return ShownGuess(guess.seed, guess.consistency_db, resized(guess.views.pictures[chosen], SHOWN_PX))


def finish(name: str, opened: Opened, field: FittedField, config: ReconstructConfig) -> Result:
    """Make the mesh of a field, and compare it with the truth if there is one."""
    begin = time.monotonic()
    smoothing = config.smoothing
    if smoothing is None:
        smoothing = 0.0 if opened.guide is opened.oracle else DRAWN_SMOOTHING
    surface = textured_surface(field, opened.fine, smoothing, config.faces, config.texture, config.texture_size)
    seconds = {**field.seconds, "mesh": time.monotonic() - begin}
    truth = {}
    if opened.truth is not None:
        truth = compared(surface.mesh, opened.truth)
        if opened.oracle is not None and opened.guide is not opened.oracle:
            truth |= baseline_scores(opened.truth, opened.oracle, config.views)
    surface = replace(surface, mesh=normalised(surface.mesh), sources=normalised(surface.sources))
    return Result(name, opened.elevation, field, surface, seconds, truth)


def write_outputs(folder: Path, result: Result, config: ReconstructConfig) -> None:
    """Write the mesh, the turntable and the report in place of earlier ones."""
    clear_results(folder)
    height_m = parse_height(config.height) if config.height else None
    write_mesh(folder / mesh_name(config), result.surface.mesh, height_m)
    frames = turntable(result.surface.mesh, config.turntable)
    write_film(folder / FILM, frames)
    write_atomically(str(folder / REPORT), report_page(result, frames))
