"""Train what the demo ships: autoencoder, classifier and label-to-image model of the drawn stimuli.

    python scripts/train_demo_ldm.py out=runs/demo_ldm

About an hour on two free CPU cores; started again, it goes on after the last part that was finished. Ends with a line
that says the autoencoder's PSNR and how many fresh drawings, reconstructions and samples the classifier recognises.
Copy the folder to mindvis/assets/demo to ship it; how the present files were made is said in their config.yaml.
"""

import sys

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import DemoRecipe


@entry_point
def main(argv=None):
    """Read the settings, train, print the figures."""
    recipe = read_settings(DemoRecipe, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.simulation.demo_models import train_demo

    figures = train_demo(recipe)
    print(
        "autoencoder {autoencoder_psnr_db:.1f} dB; recognised: {classifier_fresh:.1%} of fresh drawings, "
        "{classifier_reconstructed:.1%} reconstructed, {samples_recognised:.1%} of samples".format(**figures)
    )


if __name__ == "__main__":
    sys.exit(main())
