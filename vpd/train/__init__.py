"""Trainings: a folder for each task (`refer`, `dense`, `panoptic`, `open`, `edit`), `pretrain` for
the small diffusion model below them, `loop` and `caching` for what they share, `sweep` for grids.
`tasks` knows them by name; `distributed` and `workers` bring several processes together;
`footprint` and `cost` say what a run will need before it starts."""
