"""Predict views by rendering the true mesh of an object, in its colours but without its lighting."""

from collections.abc import Collection
from functools import lru_cache

from conf.options import UserError
from inference.evaluation.meshes.mesh_folder import mesh_folder
from inference.evaluation.methods.method import Method, Pixels
from inference.evaluation.pairs import Pair
from inference.evaluation.scored_object import ScoredObject
from inference.evaluation.selection import named
from inference.meshes.ray_casting import RayCaster, on_white
from inference.meshes.read_mesh import read_mesh


def oracle_method(folder: str, uids: Collection[str], resolution: int) -> Method:
    """Return the method that renders the true mesh, unlit, with the target's camera.

    Args:
        folder: Folder of the meshes, `<uid>.glb` or another format.
        uids: The objects.
        resolution: Side of the pictures, pixels.

    Raises:
        UserError: The folder does not exist, or an object has no mesh there.
    """
    meshes = mesh_folder("oracle", folder, "auto", "oracle").files
    if missing := set(uids) - set(meshes):
        raise UserError(f"oracle={folder}: no mesh of {named(missing)}; give a folder with <uid>.glb of each object")

    @lru_cache(maxsize=1)  # the pictures of an object are asked for one after another
    def caster(uid: str) -> RayCaster:
        return RayCaster(read_mesh(meshes[uid]))

    def pictures(one: ScoredObject, pair: Pair) -> list[Pixels]:
        return list(on_white(caster(one.uid).render(one.cameras[pair.target][None], resolution)))

    return Method("oracle", "true mesh, unlit", pictures)
