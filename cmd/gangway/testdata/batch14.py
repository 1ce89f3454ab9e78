"""The quickstart of azure-batch 14, against a launcher with real nodes."""
import datetime
import io
import os
import sys
import time

import azure.batch.models as models
from azure.batch import BatchServiceClient
from azure.batch.batch_auth import SharedKeyCredentials

endpoint, account, keyfile, nodes = sys.argv[1:5]
nodes = int(nodes)
seen = os.path.join(os.path.dirname(keyfile), "seen")
client = BatchServiceClient(SharedKeyCredentials(account, open(keyfile).read().strip()), batch_url=endpoint)


def check(ok, what):
    if not ok:
        sys.exit("not as it should be: %s" % (what,))


def refused(call, code):
    try:
        call()
    except models.BatchErrorException as e:
        check(e.error.code == code, e.error.code)
        return
    sys.exit("not refused: " + code)


def wait(what, ok, seconds=60):
    end = time.monotonic() + seconds
    while not ok():
        check(time.monotonic() < end, "after %d s still not: %s" % (seconds, what))
        time.sleep(0.1)


def text(job, task, name="stdout.txt"):
    out = io.BytesIO()
    for data in client.file.get_from_task(job, task, name):
        out.write(data)
    return out.getvalue().decode()


refused(lambda: client.pool.add(models.PoolAddParameter(id="p", vm_size="standard_d1_v2", target_dedicated_nodes=1,
    virtual_machine_configuration=models.VirtualMachineConfiguration(
        image_reference=models.ImageReference(publisher="canonical", offer="ubuntu", sku="22"), node_agent_sku_id="batch.node.ubuntu 22.04"))),
    "OperationInvalidForCurrentState")
check([p.id for p in client.pool.list()] == ["default"], "pools")
check(client.pool.exists("default") and not client.pool.exists("none"), "exists")
wait("nodes idle", lambda: [n.state for n in client.compute_node.list("default")] == [models.ComputeNodeState.idle] * nodes)

client.job.add(models.JobAddParameter(id="old", pool_info=models.PoolInformation(pool_id="default")))
r = client.task.add_collection("old", [models.TaskAddParameter(id="t%d" % i, command_line='/bin/bash -c "echo hello %d"' % i) for i in range(20)])
check(all(v.status == models.TaskAddStatus.success for v in r.value), r.value)
client.task.add("old", models.TaskAddParameter(id="once", command_line='/bin/sh -c "test -e %s && exit 0; touch %s; exit 3"' % (seen, seen)))
wait("tasks completed", lambda: all(t.state == models.TaskState.completed for t in client.task.list("old")))
check(text("old", "t5") == "hello 5\n", "stdout.txt")
counts = client.job.get_task_counts("old").task_counts
check((counts.succeeded, counts.failed) == (20, 1), counts)
part = b"".join(client.file.get_from_task("old", "t5", "stdout.txt", models.FileGetFromTaskOptions(ocp_range="bytes=6-")))
check(part == b"5\n", part)
props = client.file.get_properties_from_task("old", "t5", "stdout.txt", raw=True)
check(props.response.headers["Content-Length"] == "8", props.response.headers)
names = [f.name for f in client.file.list_from_task("old", "t5", recursive=True)]
check({"stdout.txt", "stderr.txt", "wd"} <= set(names), names)
node = client.task.get("old", "t5").node_info.node_id
check("workitems" in [f.name for f in client.file.list_from_compute_node("default", node)], "node files")
client.task.reactivate("old", "once")
wait("reactivated", lambda: client.task.get("old", "once").execution_info.exit_code == 0)
client.task.add("old", models.TaskAddParameter(id="long", command_line="sleep 600",
    constraints=models.TaskConstraints(max_wall_clock_time=datetime.timedelta(hours=1))))
wait("long runs", lambda: client.task.get("old", "long").state == models.TaskState.running)
client.task.terminate("old", "long")
wait("long completed", lambda: client.task.get("old", "long").state == models.TaskState.completed)
client.task.add("old", models.TaskAddParameter(id="gang", command_line='/bin/sh -c "%s"' % sys.argv[5],
    multi_instance_settings=models.MultiInstanceSettings(number_of_instances=nodes, coordination_command_line="")))
wait("gang completed", lambda: client.task.get("old", "gang").state == models.TaskState.completed, 90)
check(client.task.get("old", "gang").execution_info.exit_code == 0, (text("old", "gang"), text("old", "gang", "stderr.txt")))
check(len(client.task.list_subtasks("old", "gang").value) == nodes - 1, "subtasks")
print("gang:", text("old", "gang"))
client.job.patch("old", models.JobPatchParameter(priority=7))
check(client.job.get("old").priority == 7, "priority")
client.job.disable("old", models.DisableJobOption.terminate)
wait("disabled", lambda: client.job.get("old").state == models.JobState.disabled)
client.job.enable("old")
client.job.terminate("old", terminate_reason="enough")
wait("completed", lambda: client.job.get("old").state == models.JobState.completed)
client.job.delete("old")
wait("gone", lambda: "old" not in [j.id for j in client.job.list()])
refused(lambda: client.job.get("old"), "JobNotFound")
print("done")
