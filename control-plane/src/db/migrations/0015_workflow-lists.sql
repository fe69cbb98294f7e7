CREATE INDEX "workflow_runs_open" ON "workflow_runs" USING btree ("tenant_id","id") WHERE end_time IS NULL;--> statement-breakpoint
CREATE INDEX "workflow_runs_ended" ON "workflow_runs" USING btree ("tenant_id","state","id") WHERE end_time IS NOT NULL;--> statement-breakpoint
CREATE INDEX "workflow_runs_of_workflow" ON "workflow_runs" USING btree ("tenant_id","workflow","id");--> statement-breakpoint
CREATE INDEX "workflow_runs_labels" ON "workflow_runs" USING gin ("labels" jsonb_path_ops) WHERE labels IS NOT NULL;