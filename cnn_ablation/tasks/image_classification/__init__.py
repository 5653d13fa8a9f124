"""Networks that tell pictures apart: data, models, training, engine, diagnoses."""
