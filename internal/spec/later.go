package spec

import "dstack/internal/strictyaml"

// laterFields are those of later versions. They are refused with what to do
// without them, and told apart from mistakes.
var laterFields = []strictyaml.Field{
	{Name: "probes", Later: "a service is ready once its port accepts connections"},
	{Name: "rate_limits", Later: "limit the rate in your service, or in front of the gateway"},
	{Name: "gateway", Later: "the server publishes the service itself"},
	{Name: "strip_prefix", Later: "the path is passed on without /proxy/services/<project>/<run>"},
	{Name: "router", Later: "requests go to the replica with the fewest of them"},
	{Name: "cors", Later: "answer CORS requests in your service"},
	{Name: "idle_duration", Later: "remove it"},
	{Name: "stop_duration", Later: "remove it"},
	{Name: "stop_criteria", Later: "remove it"},
	{Name: "startup_order", Later: "a replica is one job; remove it"},
	{Name: "schedule", Later: "run apply from a scheduler of your own"},
	{Name: "privileged", Later: "containers run without extra rights"},
	{Name: "user", Later: "remove it"},
	{Name: "shell", Later: "commands run in bash"},
	{Name: "tags", Later: "remove it"},
	{Name: "files", Later: "the folder that you apply from is uploaded whole"},
	{Name: "repos", Later: "the folder that you apply from is uploaded whole"},
	{Name: "single_branch", Later: "remove it"},
	{Name: "docker", Later: "commands cannot start containers"},
	{Name: "priority", Later: "runs are started in the order in which they were submitted"},
	{Name: "utilization_policy", Later: "remove it"},
	{Name: "fleets", Later: "use `backends`, `regions` or `instance_types`"},
	{Name: "instances", Later: "use `instance_types`"},
	{Name: "reservation", Later: "remove it"},
	{Name: "availability_zones", Later: "use `regions`"},
	{Name: "backend_options", Later: "remove it"},
}
