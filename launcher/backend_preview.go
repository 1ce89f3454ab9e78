package launcher

import (
	"context"
	"errors"
	"fmt"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/launcher/state"
)

// previewSpec says what submitSpec would take and what it would refuse.
func (b *backend) previewSpec(ctx context.Context, who batchapi.Principal, spec job.Spec) (job.Preview, error) {
	p := job.PreviewOf(spec)
	refuse := func(err error) error {
		var no *batchapi.Invalid
		if !errors.As(err, &no) {
			return err
		}
		p.Refused = append(p.Refused, job.Refusal{Field: no.Property, Reason: no.Reason})
		return nil
	}
	if err := b.acceptable(spec); err != nil {
		if err := refuse(err); err != nil {
			return p, err
		}
	}
	if len(p.Refused) > 0 {
		return p, nil
	}
	err := b.read(ctx, func(c *state.Cluster) error {
		for i, t := range spec.Tasks {
			err := c.Possible(spec.ID, t)
			var impossible *state.ImpossibleError
			if err != nil && !errors.As(err, &impossible) {
				return err
			}
			if err != nil {
				p.Refused = append(p.Refused, job.Refusal{Field: fmt.Sprintf("tasks[%d]", i), Reason: err.Error()})
			}
		}
		return nil
	})
	return p, err
}
