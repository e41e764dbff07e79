"""One plain async function a stage; no Dagster."""
