package state

type change struct{}

func (Restarted) apply(c *Cluster, t *change) error       { return nil }
func (NodeAdded) apply(c *Cluster, t *change) error       { return nil }
func (NodeUp) apply(c *Cluster, t *change) error          { return nil }
func (NodeDown) apply(c *Cluster, t *change) error        { return nil }
func (NodeLost) apply(c *Cluster, t *change) error        { return nil }
func (NodeGone) apply(c *Cluster, t *change) error        { return nil }
func (NodeDrained) apply(c *Cluster, t *change) error     { return nil }
func (NodeRemoved) apply(c *Cluster, t *change) error     { return nil }
func (Inventory) apply(c *Cluster, t *change) error       { return nil }
func (NodeClaims) apply(c *Cluster, t *change) error      { return nil }
func (JobSubmitted) apply(c *Cluster, t *change) error    { return nil }
func (CancelRequested) apply(c *Cluster, t *change) error { return nil }
func (Placed) apply(c *Cluster, t *change) error          { return nil }
func (ShimReady) apply(c *Cluster, t *change) error       { return nil }
func (LaunchPlanned) apply(c *Cluster, t *change) error   { return nil }
func (ShimStarted) apply(c *Cluster, t *change) error     { return nil }
func (AttemptRefused) apply(c *Cluster, t *change) error  { return nil }
func (AttemptResult) apply(c *Cluster, t *change) error   { return nil }
func (ShimGone) apply(c *Cluster, t *change) error        { return nil }
