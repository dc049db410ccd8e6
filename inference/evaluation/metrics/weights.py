"""Define the options that name the weights of metrics."""

from dataclasses import dataclass

from conf.options import option

CLIP_VIT_B_32 = "openai/clip-vit-base-patch32"


@dataclass(frozen=True)
class MetricWeights:
    """Files of the weights of metrics; an empty file name means torch's cache, or else a download."""

    lpips_alex: str = option("", "state dict of torchvision's AlexNet, alexnet-owt-7be5be79.pth")
    lpips_vgg: str = option("", "state dict of torchvision's VGG-16, vgg16-397923af.pth")
    lpips_squeeze: str = option("", "state dict of torchvision's SqueezeNet 1.1, squeezenet1_1-b8a52dc0.pth")
    st_lpips_alex: str = option("", "file alex_shift_tolerant.pth of ShiftTolerant-LPIPS; it is never downloaded")
    clip: str = option(CLIP_VIT_B_32, "CLIP model of clip_similarity and clip_fid: folder, or org/name on the hub")
    inception: str = option("", "state dict of FID's Inception network, pt_inception-2015-12-05-6726825d.pth")
    download: bool = option(True, "download weights that are neither given nor in a cache")
