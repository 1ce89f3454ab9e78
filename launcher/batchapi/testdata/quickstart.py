"""The quickstart of Azure Batch's Python SDK, against the endpoint given."""
import datetime
import sys

from azure.batch import BatchClient, models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

endpoint, account, key = sys.argv[1:4]
client = BatchClient(endpoint, AzureNamedKeyCredential(account, key))
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


pools = list(client.list_pools())
check([p.id for p in pools] == ["default"] and pools[0].allocation_state == "steady", pools)
check(client.pool_exists("default"), "pool_exists")
try:  # False is meant, but this SDK raises on every 404 before it looks
    check(not client.pool_exists("none"), "pool_exists")
except ResourceNotFoundError:
    pass
check(client.get_pool("default").current_dedicated_nodes == 2, "get_pool")
check([c.dedicated.total for c in client.list_pool_node_counts()] == [2], "node counts")
refused(lambda: client.create_pool(models.BatchPoolCreateOptions(id="p", vm_size="standard_d1_v2")), ResourceExistsError, "OperationInvalidForCurrentState")
nodes = list(client.list_nodes("default", select=["id", "state"]))
check([n.id for n in nodes] == ["n1", "n2"], nodes)
check(client.get_node("default", "n1").scheduling_state == "enabled", "get_node")
client.disable_node_scheduling("default", "n1", models.BatchNodeDisableSchedulingOptions(node_disable_scheduling_option="taskcompletion"))
client.enable_node_scheduling("default", "n1")

job = models.BatchJobCreateOptions(
    id="quick",
    pool_info=models.BatchPoolInfo(pool_id="default"),
    constraints=models.BatchJobConstraints(max_wall_clock_time=datetime.timedelta(hours=2), max_task_retry_count=1),
    metadata=[models.BatchMetadataItem(name="a", value="b")],
)
client.create_job(job)
refused(lambda: client.create_job(job), ResourceExistsError, "JobExists")
got = client.get_job("quick")
check(got.state == "active" and got.constraints.max_wall_clock_time == datetime.timedelta(hours=2) and got.metadata[0].value == "b", got)
client.update_job("quick", models.BatchJobUpdateOptions(priority=5))
got = client.get_job("quick")
check(got.priority == 5, got)
got.priority = 6
client.replace_job("quick", got, etag=got.etag, match_condition=MatchConditions.IfNotModified)
try:
    client.replace_job("quick", got, etag=got.etag, match_condition=MatchConditions.IfNotModified)
    sys.exit("a stale replace was not refused")
except HttpResponseError as e:
    check(e.status_code == 412, e.status_code)

tasks = [models.BatchTaskCreateOptions(id="task%d" % i, command_line='/bin/sh -c "echo %d"' % i) for i in range(250)]
results = client.create_tasks("quick", tasks)
check(len(results.result_values) == 250, "create_tasks")
client.create_task("quick", models.BatchTaskCreateOptions(
    id="gang", command_line="mpirun ./solve", required_slots=2,
    constraints=models.BatchTaskConstraints(max_task_retry_count=2, max_wall_clock_time=datetime.timedelta(minutes=5)),
    environment_settings=[models.EnvironmentSetting(name="GANGWAY_MPI", value="auto")],
    multi_instance_settings=models.MultiInstanceSettings(number_of_instances=2, coordination_command_line="/bin/true"),
))
refused(lambda: client.create_task("quick", tasks[0]), ResourceExistsError, "TaskExists")
refused(lambda: client.create_task("quick", {"id": "x", "commandLine": "x", "resourceFiles": [{"httpUrl": "y"}]}), HttpResponseError, "UnsupportedProperty")
check(len(list(client.list_tasks("quick", max_results=100))) == 251, "list_tasks")
done = list(client.list_tasks("quick", filter="state eq 'completed' and executionInfo/exitCode eq 0", select=["id", "executionInfo"]))
check(len(done) == 251 and done[0].execution_info.result == "success", done[:1])
counts = client.get_job_task_counts("quick")
check(counts.task_counts.succeeded == 251, counts)
t = client.get_task("quick", "gang")
check(t.multi_instance_settings.number_of_instances == 2 and t.constraints.max_task_retry_count == 2 and t.node_info.node_id == "n1", t)
t = client.get_task("quick", "task1")
t.constraints = models.BatchTaskConstraints(max_task_retry_count=3)
try:
    client.replace_task("quick", "task1", t)
    sys.exit("a completed task was replaced")
except HttpResponseError as e:
    check(e.error.code == "TaskCompleted", e.error.code)
check(list(client.list_subtasks("quick", "gang")) == [], "subtasks")

check(b"".join(client.download_task_file("quick", "task1", "stdout.txt")) == b"hello from task1\n", "stdout.txt")
check(b"".join(client.download_task_file("quick", "task1", "wd/a b.txt", ocp_range="bytes=3-5")) == b"345", "range")
check(len(list(client.list_task_files("quick", "task1", recursive=True))) == 3, "files")
props = client.get_task_file_properties("quick", "task1", "stdout.txt")
check(int(props.content_length) == 17, props)
client.delete_task_file("quick", "task1", "wd", recursive=True)
check([f.name for f in client.list_node_files("default", "n1", recursive=False)] == ["workitems"], "node files")

client.begin_disable_job("quick", models.BatchJobDisableOptions(disable_tasks="requeue"), polling_interval=0).result()
client.begin_enable_job("quick", polling_interval=0).result()
client.delete_task("quick", "gang")
refused(lambda: client.get_task("quick", "gang"), ResourceNotFoundError, "TaskNotFound")
client.begin_terminate_job("quick", {"terminateReason": "enough"}, polling_interval=0).result()
check(client.get_job("quick").execution_info.termination_reason == "enough", "terminate")
client.begin_delete_job("quick", polling_interval=0).result()
refused(lambda: client.get_job("quick"), ResourceNotFoundError, "JobNotFound")
print("quickstart done")
