"""mr side by side with what people would use instead: `python -m benchmarks [w1 w2 w3 idle start]`.

    __main__      arguments in, tables (stderr) and JSON (stdout) out
    workloads     what is run, and the goals
    measure       turns: A B A B ..., medians, ratios
    service       mr on both pairs of store and broker; the only file that knows mr's commands
    peers/        Celery and Dramatiq on Redis behind Flask, and a bare pool; installed on first use
    client        the HTTP client, a process of its own
    processes     what is started is ended, and its CPU and memory are known
    machine       where all this ran
    report        the table and the JSON

Every contestant answers the same requests with the same bodies, so one client and one check do for all of them. Only
one contestant runs at a time: a peer that idles would cost the other one CPU.
"""
