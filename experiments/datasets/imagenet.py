"""ImageNet-1k: `imagenet:train` and `imagenet:val`, in torchvision's layout."""

from experiments.datasets.locations import DataSet, check_split
from lib.images.image_files import ClassFolders

DATA_SET = DataSet(
    "imagenet",
    "ImageNet-1k (ILSVRC 2012)",
    "https://www.image-net.org/download.php",
    "train/n01440764/*.JPEG and val/n01440764/*.JPEG (torchvision.datasets.ImageNet unpacks the archives so)",
)
DISTINCT_NAMES = {
    744: "projectile",
    836: "sunglass",
}  # WordNet's words; open_clip's list has "missile", "sunglasses" twice


class ImageNetSource(ClassFolders):
    """One split; classes are the synset folders in sorted order, which is the order of ImageNet's 1,000 class numbers.

    Where all 1,000 exist, they have their names in words (open_clip's, the two duplicates renamed), else those of the
    folders.
    """

    FORM = "imagenet:train|val"

    def __init__(self, split: str):
        root = DATA_SET.find(check_split(DATA_SET.kind, split, ("train", "val")))
        super().__init__(root)
        if self.class_names is None:
            raise ValueError(f"{root} holds pictures but no synset folders; sort them into {DATA_SET.layout}.")
        if len(self.class_names) == 1000:
            from open_clip import IMAGENET_CLASSNAMES

            self.class_names = tuple(DISTINCT_NAMES.get(k, name) for k, name in enumerate(IMAGENET_CLASSNAMES))
