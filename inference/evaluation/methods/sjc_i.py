"""Predict views by SJC-I, a baseline of the paper: score Jacobian chaining with a model that ignores the pose."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.methods.method import Pixels
from inference.evaluation.methods.predictions import is_picture, prediction_path, write_picture
from inference.evaluation.pairs import Pair, hashed_seed
from inference.evaluation.scored_object import ScoredObject
from inference.evaluation.scored_set import ScoredSet
from inference.novel_view import NovelView
from inference.preprocess import Prepared
from inference.reconstruction.guidance.guide import shows_pixels
from inference.reconstruction.guidance.model_guide import ModelGuide
from inference.reconstruction.sjc.fit import fit_scores
from inference.reconstruction.sjc.method import render_pictures
from inference.reconstruction.sjc.settings import SjcOptions
from rendering.cameras import Array

SJC_I = "sjc_i"
Input = tuple[Path, ScoredObject, list[Pair]]  # folder of the method, object, pairs with one input view


def write_sjc_i(
    sets: Sequence[ScoredSet], root: Path, config: EvaluateConfig, novel_view: NovelView | None = None
) -> None:
    """Write the pictures of SJC-I below `root`: a field for each input view, rendered from the targets' cameras.

    An optimisation that diverges leaves no pictures, and is named.

    Args:
        sets: The sets.
        root: Folder of the predictions.
        config: Options of the command.
        novel_view: The checkpoint; None to load it, where other processes predicted the views.

    Raises:
        UserError: The checkpoint cannot be loaded, or the device has too little memory.
    """
    inputs = inputs_without_pictures(sets, root)
    if not inputs:
        return
    novel_view = novel_view or NovelView.load(config.checkpoint, config.device, config.precision, config.compile)
    for folder, one, pairs in tqdm(inputs, desc="fields of SJC-I", unit=" inputs"):
        picture = one.picture(pairs[0].input, novel_view.model.resolution)
        guide = unposed_guide(novel_view, picture, one.cameras[pairs[0].input], config)
        seed = hashed_seed(SJC_I, config.sampling.seed, one.uid, pairs[0].input)
        try:
            views = sjc_views(guide, picture, one.cameras[[pair.target for pair in pairs]], SjcOptions(), seed)
        except torch.OutOfMemoryError:
            raise UserError("the device has too little memory for sjc_i; use device=cpu, or methods=[model]") from None
        except UserError as error:
            tqdm.write(f"SJC-I of {one.uid}: {error}")
            continue
        for pair, view in zip(pairs, views, strict=True):
            write_picture(prediction_path(folder, one.uid, pair), view)


def inputs_without_pictures(sets: Sequence[ScoredSet], root: Path) -> list[Input]:
    """Return the input views of all sets for which a picture is missing, each with its pairs."""
    inputs: dict[tuple[Path, str, int], Input] = {}
    for scored in sets:
        folder = scored.folder(root) / SJC_I
        for one in scored.objects:
            for pair in one.pairs:
                if not is_picture(prediction_path(folder, one.uid, pair)):
                    _, _, pairs = inputs.setdefault((folder, one.uid, pair.input), (folder, one, []))
                    pairs.append(pair)
    return list(inputs.values())


def unposed_guide(novel_view: NovelView, picture: Pixels, camera: Array, config: EvaluateConfig) -> ModelGuide:
    """Return the model without its pose as a guide, given an input view `[R, R, 3]` and its camera `[3, 4]`."""
    image = Image.fromarray(picture)
    return ModelGuide(novel_view, novel_view.encode(Prepared(image, image)), camera, config.sampling, posed=False)


def sjc_views(guide: ModelGuide, picture: Pixels, cameras: Array, options: SjcOptions, seed: int) -> Pixels:
    """Optimise a field by the scores of a guide; return its views `[N, R, R, 3]` from cameras `[N, 3, 4]`.

    Raises:
        UserError: The optimisation does not stay finite.
    """
    field = fit_scores(guide, picture, options.resolved(shows_pixels(guide)), seed, lambda done, loss, field: None)
    return render_pictures(guide, field, cameras)[0]
