"""The eight tasks, in the order of the data sets that they mirror."""

from dts_mini.suites.mini.tasks import aerial, digits, house_numbers, land_cover, scenes, signs, textures, vehicles

TASKS = tuple(module.TASK for module in (scenes, vehicles, aerial, land_cover, house_numbers, signs, digits, textures))
