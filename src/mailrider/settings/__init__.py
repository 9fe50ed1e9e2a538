"""How a setting is declared: directives, their types, pipelines, socket addresses."""
