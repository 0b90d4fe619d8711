"""The command line and the configuration: what is to be run. Importing this needs neither torch nor any data."""

from .arguments import Arguments, Command, command_or_exit, configure, parse, read_command
from .load import device_list, layer_names, load_config, method_title
from .schema import CommonConfig, Config, Method, Task, TextConfig, VisionConfig, schema
from .spec import RunSpec

__all__ = [
    "Arguments",
    "Command",
    "CommonConfig",
    "Config",
    "Method",
    "RunSpec",
    "Task",
    "TextConfig",
    "VisionConfig",
    "command_or_exit",
    "configure",
    "device_list",
    "layer_names",
    "load_config",
    "method_title",
    "parse",
    "read_command",
    "schema",
]
