"""The author's rooms: data, model, training. Change them; start with data.py or model.py."""
