{{- define "penstock.name" -}}
{{- if contains "penstock" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-penstock" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "penstock.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "penstock.pod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{- /* The registry's URL. Takes the root and a component: operate, serve, or migrate, which is the owner of the tables. */}}
{{- define "penstock.database" -}}
{{- $values := .root.Values.postgres }}
{{- $given := get (dict "operate" $values.controller "serve" $values.server) .component | default dict }}
{{- if .root.Values.postgres.caSecret.name }}
- {name: PENSTOCK_POSTGRES_CA_FILE, value: /etc/penstock/postgres-ca/ca.crt}
{{- end }}
- name: PENSTOCK_DATABASE_URL
  valueFrom:
    secretKeyRef:
{{- if .root.Values.quickstart.enabled }}
      name: {{ include "penstock.name" .root }}-quickstart
      key: url
{{- else if $given.existingSecret }}
      name: {{ $given.existingSecret }}
      key: {{ $given.key }}
{{- else }}
      name: {{ required "postgres.existingSecret.name: name a Secret of this namespace that holds the registry's URL, or set quickstart.enabled=true" $values.existingSecret.name }}
      key: {{ $values.existingSecret.key }}
{{- end }}
{{- if and (eq .component "migrate") (not .root.Values.quickstart.enabled) }}
{{- if $values.controller.existingSecret }}
- {name: PENSTOCK_CONTROLLER_ROLE, value: {{ $values.controller.role | quote }}}
{{- end }}
{{- if $values.server.existingSecret }}
- {name: PENSTOCK_SERVER_ROLE, value: {{ $values.server.role | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.bronze" -}}
{{- $component := .component }}
{{- with .root }}
{{- if .Values.s3.caSecret.name }}
- {name: PENSTOCK_S3_CA_FILE, value: /etc/penstock/s3-ca/ca.crt}
{{- end }}
{{- if .Values.quickstart.enabled }}
- {name: PENSTOCK_S3_ENDPOINT, value: "http://{{ include "penstock.name" . }}-s3.{{ .Release.Namespace }}.svc:7070"}
- {name: PENSTOCK_S3_BUCKET, value: {{ .Values.quickstart.s3.bucket | quote }}}
{{- else }}
- {name: PENSTOCK_S3_ENDPOINT, value: {{ .Values.s3.endpoint | quote }}}
- {name: PENSTOCK_S3_PUBLIC_ENDPOINT, value: {{ .Values.s3.publicEndpoint | quote }}}
- {name: PENSTOCK_S3_BUCKET, value: {{ required "s3.bucket: name the bucket for Bronze, or set quickstart.enabled=true" .Values.s3.bucket | quote }}}
{{- end }}
- {name: PENSTOCK_S3_PREFIX, value: {{ .Values.s3.prefix | quote }}}
- {name: AWS_REGION, value: {{ .Values.s3.region | quote }}}
{{- $own := get (dict "operate" .Values.s3.controllerSecret "serve" .Values.s3.serverSecret) $component }}
{{- $secret := ternary (printf "%s-quickstart" (include "penstock.name" .)) ($own | default .Values.s3.existingSecret) .Values.quickstart.enabled }}
{{- if $secret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ . }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What the platform decides for all tenants. */}}
{{- define "penstock.policy" -}}
- {name: PENSTOCK_SWEEP_SECONDS, value: {{ .Values.operate.sweepSeconds | default 180 | int64 | quote }}}
- {name: PENSTOCK_WATCH_NAMESPACES, value: {{ join "," .Values.watch.namespaces | quote }}}
- {name: PENSTOCK_WATCH_SELECTOR, value: {{ .Values.watch.selector | quote }}}
- {name: PENSTOCK_ADMISSION_POLICIES, value: {{ ternary (include "penstock.policies" .) "" .Values.admission.enabled | quote }}}
- {name: PENSTOCK_INSTALLATION, value: {{ .Values.installation.id | quote }}}
- {name: PENSTOCK_RECHECK_MINUTES, value: {{ .Values.operate.recheckMinutes | int64 | quote }}}
- {name: PENSTOCK_LOG_BYTES, value: {{ .Values.logs.keepBytes | int64 | quote }}}
- {name: PENSTOCK_GENERATION_DAYS, value: {{ .Values.retention.generationDays | int64 | quote }}}
- {name: PENSTOCK_PURGE_DELAY_MINUTES, value: {{ .Values.retention.purgeDelayMinutes | int64 | quote }}}
- {name: PENSTOCK_BUCKET_SWEEP_HOURS, value: {{ .Values.retention.bucketSweepHours | int64 | quote }}}
- {name: PENSTOCK_AUDIT_DAYS, value: {{ .Values.retention.auditDays | int64 | quote }}}
- {name: PENSTOCK_MAX_RUNS_PER_TENANT, value: {{ .Values.fairness.runsPerTenant | int64 | quote }}}
{{- $tenants := list }}
{{- range $tenant, $runs := .Values.fairness.tenants }}
{{- $tenants = append $tenants (printf "%s=%d" $tenant (int64 $runs)) }}
{{- end }}
- {name: PENSTOCK_TENANT_MAX_RUNS, value: {{ join "," $tenants | quote }}}
- {name: PENSTOCK_MAX_RUNS_PER_HOST, value: {{ .Values.fairness.runsPerHost | int64 | quote }}}
- {name: PENSTOCK_LAUNCH_RATE, value: {{ .Values.fairness.launchRate | quote }}}
- {name: PENSTOCK_LAUNCH_BURST, value: {{ .Values.fairness.launchBurst | int64 | quote }}}
{{- end }}

{{- /* What a role may do in tenants' namespaces. No Secret anywhere. */}}
{{- define "penstock.tenantRules" -}}
{{- if eq . "operate" }}
  - {apiGroups: [penstock.io], resources: [tenantconnections], verbs: [get, list, watch]}
  - {apiGroups: [penstock.io], resources: [tenantconnections/status], verbs: [patch]}
  - {apiGroups: [batch], resources: [jobs], verbs: [get, list, watch, create, delete]}
  - {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, create, update, delete]}
  - {apiGroups: [""], resources: [events], verbs: [list]}
  - {apiGroups: [""], resources: [pods], verbs: [list]}
{{- else }}
  - {apiGroups: [batch], resources: [jobs], verbs: [get]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list]}
{{- end }}
  - {apiGroups: [""], resources: [namespaces], verbs: [get]}
  - {apiGroups: [""], resources: [pods/log], verbs: [get]}
{{- end }}

{{- /* What a run pod reaches: the run API, the egress gateway, and a bucket that is in the cluster. */}}
{{- define "penstock.runRules" -}}
{{- $home := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) }}
{{- $rules := list }}
{{- range $role, $port := dict "serve" 8080 "egress" 8082 }}
{{- $pods := dict "matchLabels" (include "penstock.selector" (dict "root" $ "role" $role) | fromYaml) }}
{{- $peer := dict "namespaceSelector" $home "podSelector" $pods }}
{{- $rules = append $rules (dict "to" (list $peer) "ports" (list (dict "port" $port "protocol" "TCP"))) }}
{{- end }}
{{- if .Values.quickstart.enabled }}
{{- $pods := dict "matchLabels" (include "penstock.selector" (dict "root" $ "role" "s3") | fromYaml) }}
{{- $peer := dict "namespaceSelector" $home "podSelector" $pods }}
{{- $rules = append $rules (dict "to" (list $peer) "ports" (list (dict "port" 7070 "protocol" "TCP"))) }}
{{- end }}
{{- concat $rules .Values.egress.bucketRules | toJson }}
{{- end }}

{{- define "penstock.egress" -}}
- {name: PENSTOCK_EGRESS_URL, value: "{{ include "penstock.scheme" . }}://{{ include "penstock.name" . }}-egress.{{ .Release.Namespace }}.svc:8082"}
- {name: PENSTOCK_EGRESS_RULES, value: {{ include "penstock.runRules" . | quote }}}
- {name: PENSTOCK_EGRESS_BUCKET, value: {{ ternary "direct" "gateway" (or .Values.quickstart.enabled (not (empty .Values.egress.bucketRules))) }}}
{{- if .Values.networkPolicy.enabled }}
- {name: PENSTOCK_EGRESS_PROBE_PORT, value: "8083"}
{{- end }}
{{- end }}

{{- define "penstock.scheme" -}}
{{ ternary "https" "http" .Values.tls.enabled }}
{{- end }}

{{- /* The Secret with tls.crt, tls.key and ca.crt. */}}
{{- define "penstock.tlsSecret" -}}
{{- if eq .Values.tls.source "secret" }}
{{- required "tls.existingSecret: name a Secret with tls.crt, tls.key and ca.crt, or choose another tls.source" .Values.tls.existingSecret }}
{{- else -}}
{{ include "penstock.name" . }}-tls
{{- end }}
{{- end }}

{{- /*
Volumes of certificates: the serving certificate, and CAs of servers outside of the release. A pod waits for their Secrets.
The CA's own key, in the same Secret, gets into no pod.
*/}}
{{- define "penstock.tlsVolumes" -}}
{{- if .Values.tls.enabled }}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "penstock.tlsSecret" . }}
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
      - secret:
          name: {{ include "penstock.tlsSecret" . }}
          items: [{key: ca.crt, path: ca.crt}]
          {{- if ne .Values.tls.source "release" }}
          optional: true  # a public CA is trusted without it
          {{- end }}
{{- end }}
{{- range $server := list "postgres" "s3" }}
{{- with (index $.Values $server).caSecret }}
{{- if .name }}
- name: {{ $server }}-ca
  secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.caMounts" -}}
{{- range $server := list "postgres" "s3" }}
{{- if (index $.Values $server).caSecret.name }}
- {name: {{ $server }}-ca, mountPath: /etc/penstock/{{ $server }}-ca, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.tlsMount" -}}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/penstock/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "penstock.tlsVariables" -}}
{{- if .Values.tls.enabled }}
- {name: PENSTOCK_TLS_DIRECTORY, value: /etc/penstock/tls}
{{- end }}
{{- end }}

{{- define "penstock.certificatesPod" -}}
metadata:
  labels: {{- include "penstock.labels" (dict "root" .root "role" "certificates") | nindent 4 }}
spec:
  serviceAccountName: {{ include "penstock.name" .root }}-certificates
  restartPolicy: OnFailure
  {{- include "penstock.pod" .root | nindent 2 }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: 16Mi}}
  containers:
    - name: certificates
      image: {{ .root.Values.image.reference }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        - certificates
        - --namespace={{ .root.Release.Namespace }}
        - --secret={{ .secret }}
        - --cluster-domain={{ .root.Values.tls.clusterDomain }}
        {{- range .services }}
        - --service={{ . }}
        {{- end }}
      resources: {requests: {cpu: 10m, memory: 96Mi}, limits: {memory: 256Mi}}
      {{- include "penstock.container" .root | nindent 6 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
{{- end }}
