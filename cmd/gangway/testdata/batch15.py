"""The quickstart of azure-batch 15, against a launcher with real nodes."""
import datetime
import os
import sys
import time

from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

endpoint, account, keyfile, nodes = sys.argv[1:5]
nodes = int(nodes)
seen = os.path.join(os.path.dirname(keyfile), "seen")
client = BatchClient(endpoint, AzureNamedKeyCredential(account, open(keyfile).read().strip()))
client._config.polling_interval = 0


def check(ok, what):
    if not ok:
        sys.exit("not as it should be: %s" % (what,))


def refused(call, kind, code):
    try:
        call()
    except kind as e:
        check(e.error.code == code, e.error.code)
        return
    sys.exit("not refused: " + code)


def wait(what, ok, seconds=60):
    end = time.monotonic() + seconds
    while not ok():
        check(time.monotonic() < end, "after %d s still not: %s" % (seconds, what))
        time.sleep(0.1)


def text(job, task, name="stdout.txt"):
    return b"".join(client.download_task_file(job, task, name)).decode()


def task(id, command, **more):
    return models.BatchTaskCreateOptions(id=id, command_line=command, **more)


refused(lambda: client.create_pool(models.BatchPoolCreateOptions(id="p", vm_size="standard_d1_v2")), ResourceExistsError, "OperationInvalidForCurrentState")
check([p.id for p in client.list_pools()] == ["default"], "pools")
wait("nodes idle", lambda: [n.state for n in client.list_nodes("default")] == ["idle"] * nodes)
check([c.dedicated.idle for c in client.list_pool_node_counts()] == [nodes], "node counts")

client.create_job(models.BatchJobCreateOptions(id="quick", pool_info=models.BatchPoolInfo(pool_id="default"), constraints=models.BatchJobConstraints(max_task_retry_count=0)))
results = client.create_tasks("quick", [task("t%d" % i, '/bin/sh -c "echo hello %d; echo wrong >&2; echo made > made.txt"' % i) for i in range(120)])
check(len(results.result_values) == 120 and all(r.status == "success" for r in results.result_values), "create_tasks")
client.create_task("quick", task("once", '/bin/sh -c "test -e %s && exit 0; touch %s; exit 3"' % (seen, seen)))
client.create_task("quick", task("long", "sleep 600"))
client.create_task("quick", task("limit", "sleep 600", constraints=models.BatchTaskConstraints(max_wall_clock_time=datetime.timedelta(seconds=1))))
client.create_task("quick", task("env", "env", environment_settings=[models.EnvironmentSetting(name="COLOUR", value="a b")]))
client.create_task("quick", task("absent", "/no/such/program"))

wait("all but one completed", lambda: len(list(client.list_tasks("quick", filter="state eq 'completed'", select=["id"]))) == 124, 120)
for i in (0, 60, 119):
    check(text("quick", "t%d" % i) == "hello %d\n" % i, "stdout of t%d" % i)
    check(text("quick", "t%d" % i, "stderr.txt") == "wrong\n", "stderr")
check(text("quick", "t7", "wd/made.txt") == "made\n", "made.txt")
check("COLOUR=a b\n" in text("quick", "env") and "AZ_BATCH_TASK_ID=env\n" in text("quick", "env"), text("quick", "env"))
t = client.get_task("quick", "t3")
check(t.execution_info.exit_code == 0 and t.execution_info.result == "success" and t.execution_info.start_time <= t.execution_info.end_time, t)
check(t.node_info.node_id in [n.id for n in client.list_nodes("default")], t.node_info)
t = client.get_task("quick", "once")
check(t.execution_info.exit_code == 3 and t.execution_info.result == "failure", t)
t = client.get_task("quick", "limit")
check(t.execution_info.failure_info.code == "TaskEnded", t.execution_info)
t = client.get_task("quick", "absent")
check(t.execution_info.result == "failure" and t.execution_info.failure_info is not None, t.execution_info)
counts = client.get_job_task_counts("quick").task_counts
check((counts.succeeded, counts.failed, counts.completed, counts.running + counts.active) == (121, 3, 124, 1), counts)

check(b"".join(client.download_task_file("quick", "t3", "stdout.txt", ocp_range="bytes=2-4")) == b"llo", "range")
check(int(client.get_task_file_properties("quick", "t3", "stdout.txt").content_length) == 8, "properties")
names = sorted(f.name for f in client.list_task_files("quick", "t3", recursive=True))
check({"stdout.txt", "stderr.txt", "wd", "wd/made.txt"} <= set(names), names)
client.delete_task_file("quick", "t3", "wd/made.txt")
try:  # this SDK does not read the body of a download that is refused
    text("quick", "t3", "wd/made.txt")
    sys.exit("a deleted file was read")
except ResourceNotFoundError:
    pass
node = client.get_task("quick", "t4").node_info.node_id
found = [f.name for f in client.list_node_files("default", node, recursive=True)]
path = [n for n in found if n.endswith("/t4/stdout.txt")]
check(len(path) == 1, found[:20])
check(b"".join(client.download_node_file("default", node, path[0])) == b"hello 4\n", path)

client.reactivate_task("quick", "once")
wait("reactivated task succeeded", lambda: client.get_task("quick", "once").execution_info.result == "success")
wait("long runs", lambda: client.get_task("quick", "long").state == "running")
client.terminate_task("quick", "long")
wait("long completed", lambda: client.get_task("quick", "long").state == "completed")
check(client.get_task("quick", "long").execution_info.failure_info.code == "TaskEnded", "terminated")
refused(lambda: client.terminate_task("quick", "long"), HttpResponseError, "TaskCompleted")

# A gang without coordination: one command line on the primary, which starts
# the ranks over whatever the allocation is.
client.create_task("quick", task("gang", '/bin/sh -c "%s"' % sys.argv[5],
    multi_instance_settings=models.MultiInstanceSettings(number_of_instances=nodes, coordination_command_line="")))
wait("gang completed", lambda: client.get_task("quick", "gang").state == "completed", 90)
t = client.get_task("quick", "gang")
out = text("quick", "gang")
check(t.execution_info.exit_code == 0, (t.execution_info, out, text("quick", "gang", "stderr.txt")))
check(t.multi_instance_settings.number_of_instances == nodes, t.multi_instance_settings)
subtasks = list(client.list_subtasks("quick", "gang"))
check(len(subtasks) == nodes - 1 and all(s.state == "completed" for s in subtasks), subtasks)
print("gang:", out)

client.create_task("quick", task("later", "sleep 600"))
wait("later runs", lambda: client.get_task("quick", "later").state == "running")
client.begin_disable_job("quick", models.BatchJobDisableOptions(disable_tasks="requeue"), polling_interval=0).result(timeout=30)
check(client.get_job("quick").state == "disabled" and client.get_task("quick", "later").state == "active", "disabled")
client.begin_enable_job("quick", polling_interval=0).result(timeout=30)
wait("later runs again", lambda: client.get_task("quick", "later").state == "running")
client.begin_terminate_job("quick", {"terminateReason": "enough"}, polling_interval=0).result(timeout=30)
wait("job completed", lambda: client.get_job("quick").state == "completed")
check(client.get_job("quick").execution_info.termination_reason == "enough", "reason")
client.begin_delete_job("quick", polling_interval=0).result(timeout=30)
refused(lambda: client.get_job("quick"), ResourceNotFoundError, "JobNotFound")
left = lambda: [f.name for n in client.list_nodes("default") for f in client.list_node_files("default", n.id, recursive=True) if "/quick/" in f.name]
wait("nothing of the job left on the nodes", lambda: left() == [])
print("done")
