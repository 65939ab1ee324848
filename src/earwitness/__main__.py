from earwitness.cli import app

app()
