"""The paper's ablation tables, run on GOD or scaled down on the simulated cortex."""

from mindvis.ablation.run import Ablation
from mindvis.ablation.settings import AblateConfig
from mindvis.ablation.tables import load_table, table_names

__all__ = ["AblateConfig", "Ablation", "load_table", "table_names"]
