{{ task_file('experiment/config.py') }}
