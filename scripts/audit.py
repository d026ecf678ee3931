"""Audit decoded pictures: are they evidence of reconstruction, classification, retrieval or invention?

Examples:
  python scripts/audit.py decoded=runs/finetune_ldm_god/decoded others=[runs/baseline_ridge/latent]
  python scripts/audit.py decoded=my/pictures images=my/stimuli training=my/training classes=my/classes.csv

Writes audit.json and audit.html beside the pictures, or into `output`. Any folder of pictures will do; without training
pictures retrieval, without classes classification cannot be told from reconstruction. docs/audit.md says what each
figure can and cannot show.
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.decoding import AuditConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(AuditConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.common.devices import use_threads
    from mindvis.evaluation.open import audit
    from mindvis.evaluation.report_page import audit_text

    use_threads(config.num_threads)
    found, page = audit(config)
    print(audit_text(found))
    print(f"audit: {page}")


if __name__ == "__main__":
    raise SystemExit(main())
