"""The torch-free part: reads an artifact and answers. Needs numpy and the native core, nothing else."""
