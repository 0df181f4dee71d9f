{{ task_file('experiment/task.py') }}
