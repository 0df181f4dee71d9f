{{ task_file('experiment/model.py') }}
