package batchapi

import "net/http"

// maxSubmit is the size of a job that the command line submits, in bytes: a sweep
// over the lines of a file has them all.
const maxSubmit = 96 << 20

// preview shows what submit would take, and changes nothing.
func (c *call) preview() error {
	if c.s.Preview == nil {
		return newFault(http.StatusNotImplemented, "NotImplemented", "This launcher takes no jobs in this way.")
	}
	spec, err := c.jobBody()
	if err != nil {
		return err
	}
	p, err := c.s.Preview(c.Context(), c.who, spec)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, p)
	return nil
}
