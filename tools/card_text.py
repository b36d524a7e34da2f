"""The words of the model card; `model_card.card` fills in the figures."""

TEXT = """\
# Model card: realrag-small

A small dual encoder that puts photos and English phrases into one space of {dim} dimensions. It ships with RealRAG so
that the demo and the tests run offline, at once, on any CPU. **It is for that, and for trying things out. For a
library of your own use CLIP ViT-L/14 or SigLIP** (`realrag index PHOTOS --out BUNDLE --encoder ViT-L-14:openai`):
they know the world, this one knows {classes} groceries, ten kinds of clothing and thirty household objects, pets and
toys. Asked for anything else it still answers, by words and parts of words it has met, and the answer means little.

## What it is

| | |
|---|---|
| photos | MobileNet V1 1.0 at {size} x {size} (the whole photo, squashed to a square), mean over the image, one linear layer |
| phrases | lower-cased words and their groups of 3 to 5 letters, hashed; a weighted mean of their embeddings; two-layer MLP |
| size | {parameters} million weights, {megabytes} MB in fp16 |
| file | `realrag/assets/small_encoder.safetensors`, its config and training settings in the metadata |
| code | `realrag/encoders/small_net.py`; needs torch and safetensors only |

## What it learned from

| data | photos | license |
|---|---|---|
| GroceryStoreDataset, *train* split ([Klasson et al., WACV 2019](https://github.com/marcusklasson/GroceryStoreDataset)): class names, coarse names, product descriptions | 2640 | MIT |
| clothing: ten classes of flat-lay photos | 600 | CC0 |
| subjects: the 30 objects of google/dreambooth ([Ruiz et al., CVPR 2023](https://github.com/google/dreambooth)) | 158 | CC-BY 4.0, credits with the data |
| MobileNet V1 1.0 224, quantised, ImageNet ([google-coral/test_data](https://github.com/google-coral/test_data)): the start of the photo tower | - | Apache-2.0 |

The stem and the first six blocks are MobileNet's, unchanged; the other seven were trained on, with the rest, by
symmetric InfoNCE. The weights are under RealRAG's own license, Apache-2.0.

## Figures

Over all {photos} grocery *test* photos, {classes} classes, which took no part in training or in any choice (the val
split did). In brackets: 95 % bootstrap intervals over classes. A query is "{query}" with the class name; right are
the photos of that class. R@1 is the share of queries whose first photo is right.

{table}

- **names left out of training**: a second encoder that never saw the photos, names and descriptions of {count} classes,
  drawn with seed {left_out_seed} before any training, but is asked for them among all {photos} photos. What it gets
  right it owes to words the names share with others and to what MobileNet already saw. It has little to go by: **this
  encoder does not know things it was not taught**. The row after it holds the other classes, same encoder. Left out were
  {left_out}.
- **shuffled names**: every name asks for the photos of another class (20 shuffles). It must sit at chance: at what
  random vectors get in place of the names, or below at the top of the list, which the photos of the name's own class
  hold. Random vectors beat random scores in mAP, because photos of one class stay together in any ranking.
- **photo to photo**: each test photo asks for the others of its class, the photo itself left out. Many were taken
  within seconds of each other, which flatters R@1; mAP says more. MobileNet is the converted file as it came, at 224
  x 224.

## The same again

```
python -m train convert-mobilenet mobilenet_v1_1.0_224_quant_embedding_extractor.tflite --out mobilenet.safetensors
python -m train encoder --grocery GROCERY --clothing CLOTHING --subjects SUBJECTS --mobilenet mobilenet.safetensors --out small_encoder.safetensors
python -m train encoder --grocery GROCERY --clothing CLOTHING --subjects SUBJECTS --mobilenet mobilenet.safetensors --left-out {count} --left-out-seed {left_out_seed} --out left_out.safetensors
python -m train model-card --grocery GROCERY --mobilenet mobilenet.safetensors --left-out left_out.safetensors
```

The last command computes every figure of the table and writes this card and `model-card.json`. Training
took a quarter of an hour on one CPU core, after six minutes for the cached views; another machine rounds otherwise,
which can change the third digit. The settings; what was compared, was compared on the val split:

```
{config}
```

## Where it fails

- Packages with the same print, such as milks of one brand, and fruit of one kind differ by little at {size} x {size}.
- Sentences: it hears the words, not their order. Colors, counts, places and styles outside the names mean little to
  it.
- It learned from photos of Swedish shops, of clothes laid flat and of a few things at home; other surroundings cost
  precision.
"""
