{{ task_file('experiment/data.py') }}
