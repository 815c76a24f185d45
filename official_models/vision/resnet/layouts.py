"""How a ResNet's variables are split over the devices of a mesh.

{regex of whole paths: what splits each axis}, for
`keras.distribution.LayoutMap`; what is not named is on every device.
Convolutions are split along their filters, and the batch norms with them; the
last layer along its inputs, since a data set has any number of classes.
"""

MODEL = "model"
LAYOUTS = {
    r".*/(shortcut_)?conv(_\d)?/kernel": (None, None, None, MODEL),
    r".*batch_norm(_\d)?/(gamma|beta|moving_mean|moving_variance)": (MODEL,),
    "dense/kernel": (MODEL, None),
}
